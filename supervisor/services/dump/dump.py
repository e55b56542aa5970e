"""One dump: made of one moment, read again by pg_restore, and compared with what the database said of that moment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from supervisor.core.errors import SupervisorError
from supervisor.core.secret import Secret
from supervisor.services.dump.observe import Facts, database_bytes, observed

# A line of `pg_restore --list` is `215; 1259 16386 TABLE public users owner`: 1259 is pg_class, which a table's data
# (`0 16386 TABLE DATA`) is not of.
_TABLE = re.compile(r"\d+; 1259 \d+ TABLE ")


class Programs(Protocol):
    """pg_dump and pg_restore, wherever they run."""

    async def dump(self, facts: Facts, to: Path) -> None:
        """Write a dump in the custom format of that moment into the new file `to`. Raises SupervisorError with why."""

    async def tables(self, facts: Facts, dump: Path) -> int:
        """How many tables are in a dump. Raises SupervisorError where pg_restore cannot read it."""


def tables_listed(lines: Iterable[str]) -> int:
    """How many tables `pg_restore --list` names."""
    return sum(_TABLE.match(line) is not None for line in lines)


@dataclass(frozen=True)
class Dump:
    """A dump that was proved: bytes of its file, and tables in it."""

    bytes: int
    tables: int


@dataclass(frozen=True)
class DatabaseDumps:
    """Makes dumps of one database, each within `limit_seconds`."""

    dsn: Secret
    programs: Programs
    limit_seconds: float

    async def bytes_needed(self) -> int:
        """What a dump may take on the disk. Raises UnreachableError."""
        return await database_bytes(self.dsn)

    async def save(self, to: Path) -> Dump:
        """Dump into the new file `to`, which is ours alone, and on the disk when this returns.

        Raises SupervisorError, OSError: what is left in `to` then is no dump. Cancelling ends the programs.
        """
        with anyio.move_on_after(self.limit_seconds):
            return await self._saved(to)
        raise SupervisorError(
            f"cannot save the database: it was not done within {self.limit_seconds:g} s and was stopped; raise "
            f"SUPERVISOR_RELEASE_SNAPSHOT_SECONDS"
        )

    async def _saved(self, to: Path) -> Dump:
        await anyio.to_thread.run_sync(_make, to)
        async with observed(self.dsn) as facts:
            await self.programs.dump(facts, to)
        size = await anyio.to_thread.run_sync(_sync, to)
        found = await self.programs.tables(facts, to)
        if found != facts.tables:
            raise SupervisorError(
                f"cannot save the database: the dump has {found} tables, the database {facts.tables}; see that the "
                f"user of DATABASE_URL may read all of them"
            )
        return Dump(size, found)


def _make(path: Path) -> None:
    """Ours alone before anything is in it, whatever the programs' own masks are."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _sync(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
