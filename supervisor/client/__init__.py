"""The control API from outside: asking a running supervisor, and what it answered as text for people."""
