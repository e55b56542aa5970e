"""The Docker engine: which one there is, bringing our own up, and talking to it."""
