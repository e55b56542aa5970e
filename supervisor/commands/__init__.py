"""Commands that work without a running supervisor, or that become one; each is imported when it runs."""
