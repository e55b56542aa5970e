"""Traefik as a plain container."""
