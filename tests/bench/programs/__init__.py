"""Programs that are measured or that measure from within; each runs in a process of its own, by its path."""
