"""The only room that spawns, signals or waits for processes."""
