"""Secrets changed in a whole running stack: without a failed request, and killed in between."""
