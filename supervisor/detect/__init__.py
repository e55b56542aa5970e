"""What an app reads of its environment: found by running it, apart from the system, with the reads written down."""
