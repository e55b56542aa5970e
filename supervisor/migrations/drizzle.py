"""A Drizzle folder (`meta/_journal.json`), applied as drizzle-orm's own Postgres migrator applies it.

Rules from drizzle-orm 0.45, pg-core/dialect.js `migrate` and migrator.js: a journal entry is pending when its `when` is
above the newest `created_at` of the table, as it was at the start; the hash, SHA-256 of the file, is written, never
compared; all that is pending runs in one transaction.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
from anyio import to_thread

from supervisor.core.errors import MigrationError
from supervisor.core.secret import Secret
from supervisor.migrations.ledger import LedgerSchema
from supervisor.migrations.lock import acquire
from supervisor.migrations.model import Report
from supervisor.migrations.progress import Phase, Progress, Scope
from supervisor.migrations.runner import WHOLE_FROM, run_statements
from supervisor.migrations.script import ScriptError, Statement, checked
from supervisor.migrations.session import Session, bounded, connect, has_table, prepare
from supervisor.migrations.sql_file import decode

JOURNAL = "meta/_journal.json"
_BREAKPOINT = "--> statement-breakpoint"
_DIALECTS = ("postgresql", "pg", "")
_SHOWN = 5
_LEDGER = """
CREATE TABLE IF NOT EXISTS drizzle.__drizzle_migrations (
    id SERIAL PRIMARY KEY,
    hash text NOT NULL,
    created_at bigint
)
"""
# The order is Drizzle's, so that "newest" is the same row for both, a NULL first included.
_READ = "SELECT hash, created_at FROM drizzle.__drizzle_migrations ORDER BY created_at DESC"
_INSERT = "INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ($1, $2)"


@dataclass(frozen=True)
class Entry:
    """One migration of the journal; `when` in milliseconds. `data` is None when its file is missing."""

    tag: str
    when: int
    data: bytes | None

    @property
    def file(self) -> str:
        """Its file's name."""
        return f"{self.tag}.sql"

    @property
    def sha256(self) -> str:
        """What Drizzle calls its hash."""
        return hashlib.sha256(self.data or b"").hexdigest()


@dataclass(frozen=True)
class DrizzlePlan:
    """What Drizzle itself would run now, and what looks odd about the rest."""

    pending: tuple[Entry, ...]
    already: int
    warnings: tuple[str, ...]


class DrizzleFolder:
    """Migrations made by drizzle-kit; a database migrated by Drizzle goes on here, and the other way round.

    One query when nothing is pending, and no lock. A hash that differs from the table's, or an entry that Drizzle's
    rule skips for ever, is a warning. Forward only. With `apart`, an app's name, the table is in
    a schema of that app's.
    """

    def __init__(self, folder: Path, dsn: Secret, *, lock_name: str, deadline_seconds: float, apart: str = "") -> None:
        self._folder = folder
        self._dsn = dsn
        self._lock_name = lock_name
        self._deadline_seconds = deadline_seconds
        self._table_seen = False
        self._ledger = LedgerSchema("drizzle", apart)

    async def apply(self) -> Report:
        """See `Migrations.apply`. The folder is read anew each time, so a reload sees new migrations."""
        started = time.monotonic()
        progress = Progress(f"Drizzle folder {str(self._folder)!r}", scope=Scope.ALL)
        entries = await to_thread.run_sync(read_folder, self._folder)
        async with bounded(progress, self._deadline_seconds), connect(self._dsn) as session:
            plan = decide(entries, await self._read(session, progress) or ())
            if plan.pending:
                plan = await self._apply_locked(session, entries, progress)
                self._table_seen = True
        return Report(
            kind="drizzle",
            applied=tuple(progress.applied),
            already=plan.already,
            warnings=plan.warnings,
            elapsed_seconds=time.monotonic() - started,
        )

    async def due(self) -> None:
        """See `Migrations.due`: there are none of that kind."""
        return

    async def contract(self) -> Report:
        """See `Migrations.contract`. Raises MigrationError."""
        raise MigrationError(
            f"cannot apply contract migrations: {str(self._folder)!r} is a Drizzle folder, which has no such kind; all "
            f"of it is applied with each start of new code"
        )

    async def _apply_locked(self, session: Session, entries: Sequence[Entry], progress: Progress) -> DrizzlePlan:
        await acquire(session, self._lock_name, progress)
        rows = await self._read(session, progress)
        if rows is None:
            progress.phase = Phase.LEDGER
            await session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._ledger.name}")
            await session.execute(self._ledger.sql(_LEDGER))
        plan = decide(entries, rows or ())
        if plan.pending:
            scripts = await to_thread.run_sync(check_entries, plan.pending)
            await prepare(session)
            await self._run(session, plan.pending, scripts, progress)
        return plan

    async def _read(self, session: Session, progress: Progress) -> list[tuple[str, int | None]] | None:
        """Drizzle's table, newest first, None when there is none; one query once the table was seen."""
        progress.phase = Phase.READ
        if not self._table_seen and not await has_table(session, self._ledger.sql("drizzle.__drizzle_migrations")):
            return None
        self._table_seen = True
        try:
            rows = await session.fetch(self._ledger.sql(_READ))
        except asyncpg.UndefinedTableError:
            return None
        return [(row["hash"], row["created_at"]) for row in rows]

    async def _run(
        self,
        session: Session,
        pending: Sequence[Entry],
        scripts: Sequence[tuple[str, tuple[Statement, ...]]],
        progress: Progress,
    ) -> None:
        await session.execute("BEGIN")
        for entry, (text, statements) in zip(pending, scripts, strict=True):
            progress.begin_file(entry.file, text, len(statements))
            await run_statements(session, statements, progress, whole_from=WHOLE_FROM)
            await session.execute(self._ledger.sql(_INSERT), entry.sha256, entry.when)
            progress.applied.append(entry.tag)
        progress.phase = Phase.COMMIT
        if session.is_in_transaction():
            await session.execute("COMMIT")


def read_folder(folder: Path) -> list[Entry]:
    """The journal and its files; blocks on the disk. Raises MigrationError for a journal that cannot be used."""
    path = folder / JOURNAL
    try:
        entries = parse_journal(path.read_bytes(), str(path))
        return [replace(entry, data=_read_if_there(folder / entry.file)) for entry in entries]
    except OSError as error:
        raise MigrationError(
            f"cannot read Drizzle folder {str(folder)!r}: {error.filename or path}: {error.strerror}; "
            f"check SUPERVISOR_MIGRATE_DIR and the rights of what is in it"
        ) from error


def parse_journal(data: bytes, path: str) -> list[Entry]:
    """The entries of a journal, in its order, without their files' contents."""
    try:
        journal = json.loads(data)
        entries = [Entry(str(entry["tag"]), int(entry["when"]), None) for entry in journal["entries"]]
        dialect = str(journal.get("dialect", ""))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MigrationError(
            f"cannot read Drizzle journal {path!r}: {type(error).__name__}: {error}; restore it from version control, "
            f"or make it anew with drizzle-kit"
        ) from error
    if dialect not in _DIALECTS:
        raise MigrationError(
            f"cannot use Drizzle journal {path!r}: its dialect is {dialect!r}; it must be 'postgresql'"
        )
    return entries


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def decide(entries: Sequence[Entry], rows: Sequence[tuple[str, int | None]]) -> DrizzlePlan:
    """What Drizzle's rule makes pending; `rows` are (hash, created_at), newest first.

    Raises MigrationError when the file of a pending entry is missing.
    """
    newest = (rows[0][1] or 0) if rows else None
    pending = tuple(entry for entry in entries if newest is None or entry.when > newest)
    for entry in pending:
        if entry.data is None:
            raise MigrationError(
                f"cannot apply migration {entry.file!r}: the journal names it and the file is missing; put it back, or "
                f"take its entry out of {JOURNAL}; nothing was changed in the database"
            )
    passed = [entry for entry in entries if entry not in pending]
    hashes: dict[int, set[str]] = {}
    for sha256, created_at in rows:
        hashes.setdefault(created_at or 0, set()).add(sha256)
    return DrizzlePlan(pending, len(passed), tuple(_oddities(passed, hashes)))


def _oddities(passed: Sequence[Entry], hashes: Mapping[int, set[str]]) -> Iterator[str]:
    skipped = [entry.file for entry in passed if entry.when not in hashes]
    if skipped:
        yield (
            f"Drizzle's rule skips {_some(skipped)}: its `when` in the journal is older than the newest applied "
            f"migration, and the database has no row for it; if it should run, raise its `when` in {JOURNAL}"
        )
    missing = [entry.file for entry in passed if entry.data is None]
    if missing:
        yield f"the journal names {_some(missing)}, applied before, and the file is missing"
    changed = [e.file for e in passed if e.data is not None and e.when in hashes and e.sha256 not in hashes[e.when]]
    if changed:
        yield f"{_some(changed)} changed after it had been applied; as with Drizzle itself, this has no effect"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def check_entries(entries: Sequence[Entry]) -> list[tuple[str, tuple[Statement, ...]]]:
    """Text and statements of each entry, all checked before the first one runs."""
    return [_check_entry(entry) for entry in entries]


def _check_entry(entry: Entry) -> tuple[str, tuple[Statement, ...]]:
    text = decode(entry.data or b"", entry.file)
    try:
        return text, tuple(statements_of(text))
    except ScriptError as error:
        raise MigrationError(
            f"cannot apply migration {entry.file!r}: line {error.line}: {error.why}; nothing of it was run"
        ) from None


def statements_of(text: str) -> Iterator[Statement]:
    """The statements of a file cut at Drizzle's breakpoints; a chunk of several is cut further, so each has its line.

    Beginning and ending transactions is let through, as Drizzle does.
    """
    offset = 0
    for chunk in text.split(_BREAKPOINT):
        line = text.count("\n", 0, offset)
        try:
            for found in checked(chunk, own_transaction=True):
                yield replace(found, offset=found.offset + offset, line=found.line + line)
        except ScriptError as error:
            raise ScriptError(error.line + line, error.why) from None
        offset += len(chunk) + len(_BREAKPOINT)
