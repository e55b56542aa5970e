"""Reloads of a whole supervisor under load, with the real HAProxy, and with apps that do what apps do."""
