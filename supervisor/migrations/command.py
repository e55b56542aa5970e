"""A migration command (`prisma migrate deploy`, `alembic upgrade head`): run under the lock where there is one."""

from __future__ import annotations

import hashlib
import json
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

import anyio
import asyncpg
from anyio import lowlevel

from supervisor.core.errors import MigrationError
from supervisor.core.secret import Secret
from supervisor.migrations.ledger import LedgerSchema
from supervisor.migrations.lock import acquire
from supervisor.migrations.model import Report
from supervisor.migrations.progress import Progress, describe_error
from supervisor.migrations.session import Session, bounded, connect, prepare
from supervisor.process.child import Child, Command, Exit, explain_spawn_error
from supervisor.process.output import Line, Ring
from supervisor.process.reaper import Reaper

TAIL_LINES = 20
_SETTLE_TURNS = 20
_LEDGER = """
CREATE TABLE IF NOT EXISTS supervisor.commands (
    lock_name text PRIMARY KEY,
    sha256 text NOT NULL,
    command text NOT NULL,
    finished_at timestamptz NOT NULL,
    elapsed_seconds double precision NOT NULL
)
"""
_READ = "SELECT finished_at > $3 FROM supervisor.commands WHERE lock_name = $1 AND sha256 = $2"
_WRITE = """
INSERT INTO supervisor.commands (lock_name, sha256, command, finished_at, elapsed_seconds)
VALUES ($1, $2, $3, clock_timestamp(), $4)
    ON CONFLICT (lock_name) DO UPDATE SET sha256 = excluded.sha256, command = excluded.command,
        finished_at = excluded.finished_at, elapsed_seconds = excluded.elapsed_seconds
"""


class Run(Protocol):
    """Runs the command once per call. `identity` is the same for two runs that would do the same."""

    @property
    def identity(self) -> str:
        """What tells one command from another: no secret in it, as it is kept as a digest beside `title`."""
        ...

    @property
    def title(self) -> str:
        """The command for people."""
        ...

    async def __call__(self) -> Exit:
        """Run it to its end. Cancelling stops it, and returns once nothing of it is left. Raises MigrationError."""
        ...

    def tail(self, count: int) -> Sequence[str]:
        """The last lines of the run in hand or the last one."""
        ...


class SpawnedRun:
    """The command as a child of the supervisor, its output line by line in `ring`.

    `make_command` is asked anew for each run, so that its environment is that of the moment.
    Stopping it is its stop signal, `grace_seconds`, then KILL, to it and all it started.
    """

    def __init__(
        self, reaper: Reaper, make_command: Callable[[], Command], ring: Ring, *, grace_seconds: float = 3.0
    ) -> None:
        self._reaper = reaper
        self._make_command = make_command
        self._ring = ring
        self._grace_seconds = grace_seconds
        self._first_line = 0

    @property
    def identity(self) -> str:
        """The words of the command and its folder."""
        command = self._make_command()
        return json.dumps([list(command.argv), command.cwd])

    @property
    def title(self) -> str:
        """The command as one would type it."""
        return shlex.join(self._make_command().argv)

    async def __call__(self) -> Exit:
        """See `Run`. What it left running in the background is ended too: nothing would ever stop it otherwise."""
        self._first_line = self._ring.number
        command = self._make_command()
        try:
            child = self._reaper.spawn(command, self._ring)
        except OSError as error:
            raise MigrationError(f"{explain_spawn_error(command, error)}; correct MIGRATE_COMMAND") from error
        try:
            return await child.wait()
        finally:
            with anyio.CancelScope(shield=True):
                await self._end(child)

    async def _end(self, child: Child) -> None:
        await child.stop(grace_seconds=self._grace_seconds)
        # Its last words are in the pipes; give the readers their turns, as nothing tells when they are through.
        for _ in range(_SETTLE_TURNS):
            await lowlevel.checkpoint()

    def tail(self, count: int) -> list[str]:
        """See `Run`."""
        lines: list[Line] = self._ring.since(self._first_line)
        return [line.text for line in lines[-count:]]


class CommandMigrations:
    """Migrations that a command of the user's applies. What is pending is the command's to know: it runs each time.

    With a `dsn` it runs under the advisory lock; a supervisor that had to wait for the lock does not run it again when
    the same command succeeded meanwhile, by the database's clock. Without, it runs unlocked. The lock is a database
    session: should it be lost while the command runs, the command goes on and a warning says so.
    """

    def __init__(
        self, run: Run, dsn: Secret | None, *, lock_name: str, deadline_seconds: float, apart: str = ""
    ) -> None:
        self._run = run
        self._dsn = dsn
        self._lock_name = lock_name
        self._ledger = LedgerSchema("supervisor", apart)
        self._deadline_seconds = deadline_seconds

    async def apply(self) -> Report:
        """See `Migrations.apply`. One deadline for the wait and the run; cancelling stops the command."""
        started = time.monotonic()
        if self._dsn is None:
            await self._run_within(self._deadline_seconds)
            return self._report(started, ran=True)
        async with connect(self._dsn) as session:
            progress = Progress(f"migration command {self._run.title!r}")
            async with bounded(progress, self._deadline_seconds):
                done = await self._claim(session, progress)
            if done:
                return self._report(started, ran=False)
            begun = time.monotonic()
            await self._run_within(self._deadline_seconds - (begun - started))
            warnings = await self._record(session, time.monotonic() - begun)
        return self._report(started, ran=True, warnings=warnings)

    async def due(self) -> None:
        """See `Migrations.due`: what the command knows is not known here."""
        return

    async def contract(self) -> Report:
        """See `Migrations.contract`. Raises MigrationError."""
        raise MigrationError(
            f"cannot apply contract migrations: migrations are made by the command {self._run.title!r}, which has no "
            f"such kind; run by hand what it has for that, or use a folder of SQL files (SUPERVISOR_MIGRATE_DIR)"
        )

    def _report(self, started: float, *, ran: bool, warnings: tuple[str, ...] = ()) -> Report:
        return Report(
            kind="command",
            applied=(self._run.title,) if ran else (),
            already=0 if ran else 1,
            warnings=warnings,
            elapsed_seconds=time.monotonic() - started,
        )

    async def _claim(self, session: Session, progress: Progress) -> bool:
        """Take the lock; True when the command succeeded elsewhere while we waited for it."""
        asked_at: datetime = await session.fetchval("SELECT clock_timestamp()")
        waited = await acquire(session, self._lock_name, progress)
        if waited:
            try:
                if await session.fetchval(self._ledger.sql(_READ), self._lock_name, self._digest, asked_at):
                    return True
            except asyncpg.UndefinedTableError:
                pass  # nobody has ever succeeded
        await prepare(session)
        return False

    @property
    def _digest(self) -> str:
        return hashlib.sha256(self._run.identity.encode()).hexdigest()

    async def _run_within(self, limit_seconds: float) -> None:
        with anyio.move_on_after(limit_seconds) as deadline:
            ended = await self._run()
            if ended.clean:
                return
            end = f"was {ended}" if ended.signal else str(ended)  # "was killed by SIGKILL", "exited with 1"
            raise MigrationError(self._explain(f"it {end}", "correct what it complains of, then start or reload again"))
        if deadline.cancelled_caught:
            raise MigrationError(
                self._explain(
                    f"it did not end within its deadline of {self._deadline_seconds:g} s and was stopped",
                    "find what it waits for, or raise SUPERVISOR_MIGRATE_SECONDS",
                )
            )

    def _explain(self, why: str, advice: str) -> str:
        tail = self._run.tail(TAIL_LINES)
        words = "\n".join(("its last lines:", *(f"  {line}" for line in tail))) if tail else "it wrote nothing"
        return (
            f"cannot apply migrations: {self._run.title!r}: {why}; what it did until then is in the database, "
            f"as far as it did not undo it itself; {advice}; {words}"
        )

    async def _record(self, session: Session, elapsed_seconds: float) -> tuple[str, ...]:
        """Note the success for those who wait for the lock. It is done in any case, so a failure here is a warning."""
        try:
            with anyio.fail_after(5.0):
                await self._write(session, elapsed_seconds)
        except asyncpg.PostgresError as error:
            why = describe_error(error)
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            why = str(error) or type(error).__name__
        else:
            return ()
        return (
            f"the migration command succeeded, but that could not be noted in the database ({why}): another "
            f"supervisor that waits for the lock, or lost sight of it, may run it again",
        )

    async def _write(self, session: Session, elapsed_seconds: float) -> None:
        values = (self._lock_name, self._digest, self._run.title, elapsed_seconds)
        try:
            await session.execute(self._ledger.sql(_WRITE), *values)
        except asyncpg.UndefinedTableError:
            await session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._ledger.name}")
            await session.execute(self._ledger.sql(_LEDGER))
            await session.execute(self._ledger.sql(_WRITE), *values)
