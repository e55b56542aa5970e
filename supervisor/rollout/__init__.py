"""Releases connected with what serves them, with the database and with the control API: wiring."""
