"""A folder of plain `NNNN_name.sql` files, applied in the order of their numbers, each once."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
from supervisor.migrations.session import RESET, Session, bounded, connect, has_table, prepare
from supervisor.migrations.sql_file import CONTRACT, EXPAND, LedgerRow, Plan, SqlFile, decide, parse_file, parse_names

_LEDGER = """
CREATE TABLE IF NOT EXISTS supervisor.migrations (
    app text NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    kind text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_at timestamptz,
    elapsed_seconds double precision,
    PRIMARY KEY (app, name)
)
"""
_READ = """
SELECT name, sha256, applied_at IS NOT NULL AS applied, started_at AT TIME ZONE 'UTC' AS started_at
  FROM supervisor.migrations WHERE app = $1
"""
_START = """
INSERT INTO supervisor.migrations (app, name, sha256, kind) VALUES ($1, $2, $3, $4)
    ON CONFLICT (app, name) DO UPDATE SET sha256 = excluded.sha256, started_at = excluded.started_at
"""
_FINISH = """
UPDATE supervisor.migrations SET applied_at = clock_timestamp(), elapsed_seconds = $3 WHERE app = $1 AND name = $2
"""


class SqlFolder:
    """Migrations in plain SQL. A file runs whole in one transaction together with its row in `supervisor.migrations`.

    In a file's first lines, `-- supervisor: no-transaction` runs its statements one by one outside of any (for CREATE
    INDEX CONCURRENTLY and its like), `-- supervisor: contract` keeps it from running with the others: it is reported as
    due, and `contract` runs it. A file without a transaction that did not end stops the next run, unless it also says
    `idempotent`.

    One query when nothing is pending, and no lock; else the lock, and the ledger read again under it. An applied file
    must not change; one with a number below the highest applied is applied, with a warning. Forward only. With `apart`,
    an app's name, the ledger is a schema of that app's.
    """

    def __init__(
        self, folder: Path, dsn: Secret, *, lock_name: str, deadline_seconds: float, app: str = "app", apart: str = ""
    ) -> None:
        self._folder = folder
        self._dsn = dsn
        self._lock_name = lock_name
        self._deadline_seconds = deadline_seconds
        self._app = app
        self._ledger = LedgerSchema("supervisor", apart)
        self._ledger_seen = False

    async def apply(self) -> Report:
        """See `Migrations.apply`. Files are read anew each time, so a reload sees new ones."""
        return await self._run(EXPAND)

    async def contract(self) -> Report:
        """See `Migrations.contract`."""
        return await self._run(CONTRACT)

    async def due(self) -> tuple[str, ...]:
        """See `Migrations.due`. Changes nothing."""
        progress = self._progress()
        files = await to_thread.run_sync(read_folder, self._folder)
        async with bounded(progress, self._deadline_seconds), connect(self._dsn) as session:
            return decide(files, await self._read(session, progress) or (), locked=False).due

    def _progress(self) -> Progress:
        return Progress(f"migrations folder {str(self._folder)!r}", self._app)

    async def _run(self, kind: str) -> Report:
        started = time.monotonic()
        progress = self._progress()
        files = await to_thread.run_sync(read_folder, self._folder)
        async with bounded(progress, self._deadline_seconds), connect(self._dsn) as session:
            rows = await self._read(session, progress)
            plan = decide(files, rows or (), kind=kind, locked=False)
            if plan.pending:
                plan = await self._apply_locked(session, files, progress, kind)
                self._ledger_seen = True
        return Report(
            kind="sql",
            applied=tuple(progress.applied),
            already=plan.already,
            due=plan.due,
            warnings=plan.warnings,
            elapsed_seconds=time.monotonic() - started,
        )

    async def _apply_locked(self, session: Session, files: Sequence[SqlFile], progress: Progress, kind: str) -> Plan:
        await acquire(session, self._lock_name, progress)
        rows = await self._read(session, progress)
        if rows is None:
            # Only when missing: CREATE ... IF NOT EXISTS needs the right to create even where nothing is created.
            progress.phase = Phase.LEDGER
            await session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._ledger.name}")
            await session.execute(self._ledger.sql(_LEDGER))
        plan = decide(files, rows or (), kind=kind)
        scripts = await to_thread.run_sync(check_files, plan.pending)
        for file, statements in zip(plan.pending, scripts, strict=True):
            await prepare(session)
            progress.begin_file(file.name, file.text, len(statements))
            if file.transaction:
                await self._run_in_transaction(session, file, statements, progress)
            else:
                await self._run_bare(session, file, statements, progress)
            progress.applied.append(file.name)
        return plan

    async def _read(self, session: Session, progress: Progress) -> list[LedgerRow] | None:
        """The ledger, None when there is none; one query once the ledger was seen."""
        progress.phase = Phase.READ
        if not self._ledger_seen and not await has_table(session, self._ledger.sql("supervisor.migrations")):
            return None
        self._ledger_seen = True
        try:
            rows = await session.fetch(self._ledger.sql(_READ), self._app)
        except asyncpg.UndefinedTableError:
            return None
        return [LedgerRow(row["name"], row["sha256"], row["applied"], row["started_at"], self._app) for row in rows]

    async def _run_in_transaction(
        self, session: Session, file: SqlFile, statements: Sequence[Statement], progress: Progress
    ) -> None:
        progress.scope = Scope.FILE
        started = time.monotonic()
        await session.execute("BEGIN")
        await run_statements(session, statements, progress, whole_from=WHOLE_FROM)
        progress.phase = Phase.COMMIT
        await session.execute(RESET)  # the ledger is written by the user of the connection, whatever the file SET
        await self._start(session, file)
        await self._finish(session, file, started)
        await session.execute("COMMIT")

    async def _run_bare(
        self, session: Session, file: SqlFile, statements: Sequence[Statement], progress: Progress
    ) -> None:
        """The row goes first: if we are killed half-way, the next run finds it started and not applied."""
        progress.scope = Scope.NOTHING
        started = time.monotonic()
        await self._start(session, file)
        await run_statements(session, statements, progress)
        progress.phase = Phase.COMMIT
        if session.is_in_transaction():
            raise MigrationError(
                f"cannot apply {progress.thing()}: it leaves a transaction of its own open, which was rolled back; "
                f"add the missing COMMIT; the ledger holds it as started, so {progress.advice()}"
            )
        await session.execute(RESET)
        await self._finish(session, file, started)

    async def _start(self, session: Session, file: SqlFile) -> None:
        await session.execute(self._ledger.sql(_START), self._app, file.name, file.sha256, file.kind)

    async def _finish(self, session: Session, file: SqlFile, started: float) -> None:
        await session.execute(self._ledger.sql(_FINISH), self._app, file.name, time.monotonic() - started)


def read_folder(folder: Path) -> list[SqlFile]:
    """All migrations of a folder, by number; blocks on the disk. Raises MigrationError for a folder or file unfit."""
    try:
        names = parse_names((path.name for path in folder.iterdir() if not path.is_dir()), str(folder))
        return [parse_file(name, (folder / name).read_bytes()) for name in names]
    except OSError as error:
        raise MigrationError(
            f"cannot read migrations folder {str(folder)!r}: {error.filename or folder}: {error.strerror}; "
            f"check SUPERVISOR_MIGRATE_DIR and the rights of what is in it"
        ) from error


def check_files(files: Sequence[SqlFile]) -> list[tuple[Statement, ...]]:
    """The statements of each file, all checked before the first one runs."""
    return [_check_file(file) for file in files]


def _check_file(file: SqlFile) -> tuple[Statement, ...]:
    try:
        return checked(file.text, own_transaction=not file.transaction)
    except ScriptError as error:
        raise MigrationError(
            f"cannot apply migration {file.name!r}: line {error.line}: {error.why}; nothing of it was run"
        ) from None
