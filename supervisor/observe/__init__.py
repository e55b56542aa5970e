"""Folds over events: the log, the event log and the status document. Nothing here asks another part for anything."""
