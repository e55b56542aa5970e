"""The services behind the app: what they are, in which order they start, and whether they really work."""
