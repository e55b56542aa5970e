"""Postgres, Redis and Traefik as children of ours, on loopback: commands, files and probes; no loop, no spawning."""
