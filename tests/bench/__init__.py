"""Measurements, run by `scripts/bench`: figures beside their targets, never an assertion about time."""
