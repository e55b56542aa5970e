"""Postgres and Redis as Swarm services of one task each."""
