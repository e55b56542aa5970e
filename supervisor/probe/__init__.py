"""One attempt at proving that something works; no loops, no schedules."""
