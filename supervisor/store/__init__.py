"""What is kept on disk: atomic files, locks, records, secrets."""
