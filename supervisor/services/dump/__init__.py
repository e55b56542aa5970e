"""Saves the whole database into a file, by Postgres' own programs where its server is, and proves that it is whole."""
