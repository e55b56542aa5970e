"""Logs kept on disk, a file for each source: off by default, as a container's log is its standard output."""
