"""Reload under live traffic, ours and others side by side. A package, as it is many small benchmarks in one run."""
