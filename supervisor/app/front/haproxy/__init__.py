"""The front `proxy`: HAProxy as a supervised child on sockets that we hold."""
