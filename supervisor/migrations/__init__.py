"""Brings the database's schema up to the code: a command, a folder of plain SQL files, or a Drizzle folder.

Forward only: nothing here undoes a migration. A run holds a Postgres advisory lock, so two supervisors do it once.
Whether, when and what follows from a failure is decided by the wiring.
"""
