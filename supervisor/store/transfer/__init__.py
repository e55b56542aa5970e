"""A state folder in one file: what belongs to it, how it is read at one moment, sealed, and put in place elsewhere."""
