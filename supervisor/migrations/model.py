"""What every kind of migrations promises and reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["command", "sql", "drizzle", "none"]


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did. `applied`, in order, is what it ran itself; `already` counts what had been applied before.

    `due` are the contract migrations nobody has run yet; only `contract` applies them. `warnings` are whole sentences.
    """

    kind: Kind
    applied: tuple[str, ...] = ()
    already: int = 0
    due: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    elapsed_seconds: float = 0.0


class Migrations(Protocol):
    """One source of migrations."""

    async def apply(self) -> Report:
        """Apply what is pending; returns once it is in the database.

        Raises MigrationError when a migration, or the wait for the lock, fails, and UnreachableError when the database
        cannot be reached or is lost half-way; both say what state the database is in. Cancelling ends the statement in
        hand on the server, which rolls its transaction back; of a file without a transaction what ran stays.
        """
        ...

    async def due(self) -> tuple[str, ...] | None:
        """The contract migrations that nobody has run yet; None where there is no such kind. Raises as `apply` does."""
        ...

    async def contract(self) -> Report:
        """Apply what is due, under the same lock, once nothing else is pending. Raises as `apply` does, and
        MigrationError where this kind of migrations has no such ones.
        """
        ...
