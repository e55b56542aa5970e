"""Several apps on one Postgres and one Redis, none of which can read what is another's."""
