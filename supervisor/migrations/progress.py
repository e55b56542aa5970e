"""How far a run has come, and the words for what ended it: what failed, where, what state the database is in. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import asyncpg

from supervisor.migrations.script import Statement, line_at, shorten

_ADVICE = {
    "25001": "put `-- supervisor: no-transaction` in the file's first line",
    "25006": "point DATABASE_URL at the primary server",
    "42501": "GRANT the missing right to the user of DATABASE_URL, or use the owner",
    "53100": "free some space on the database's disk",
    "57014": "the server has a statement_timeout for this user or database; raise it, or SET it in the file",
    "55P03": "the server has a lock_timeout for this user or database; raise it, or SET it in the file",
}


class Phase(StrEnum):
    """What a run is doing."""

    CONNECT = "connecting to the database"
    READ = "reading the ledger"
    LOCK = "waiting for the migration lock"
    LEDGER = "setting up the ledger"
    RUN = "running"
    COMMIT = "committing"


class Scope(StrEnum):
    """What a failure takes back."""

    FILE = "file"
    """The file's own transaction."""
    ALL = "all"
    """One transaction around all pending files (Drizzle)."""
    NOTHING = "nothing"
    """Every statement counts by itself."""


@dataclass
class Progress:
    """Where a run is. Written by the runner, read by whoever explains its end.

    `total` and `done` count the statements of the file in hand, and `statement` is the one that runs (its `line` 0 when
    the file was sent whole, so that only the server can say where); `broken_by` is a file that by itself ended the
    transaction around all pending files.
    """

    what: str
    app: str = "app"
    phase: Phase = Phase.CONNECT
    scope: Scope = Scope.FILE
    file: str = ""
    source: str = ""
    statement: Statement | None = None
    done: int = 0
    total: int = 0
    broken_by: str = ""
    holder: str = ""
    applied: list[str] = field(default_factory=list)

    def begin_file(self, file: str, source: str, total: int) -> None:
        """The next file is being run."""
        self.phase, self.file, self.source = Phase.RUN, file, source
        self.statement, self.done, self.total = None, 0, total

    @property
    def _in_file(self) -> bool:
        return bool(self.file) and self.phase in (Phase.RUN, Phase.COMMIT)

    def thing(self) -> str:
        """What could not be applied, for `cannot apply <thing>`."""
        return f"migration {self.file!r}" if self._in_file else self.what

    def place(self, position: int | None = None) -> str:
        """`line 7: <that line>: `, or "" when none is known. `position` is the server's: from 1, in the statement."""
        if not self._in_file:
            return ""
        if self.phase is Phase.COMMIT:
            return "at its commit: "
        if self.statement is None or (self.statement.line == 0 and position is None):
            return ""
        offset = self.statement.offset + (position - 1 if position else 0)
        line, text = line_at(self.source, offset)
        return f"line {line}: `{shorten(text)}`: "

    def state(self, *, answered: bool = True) -> str:
        """What the database holds now. `answered`: the server itself said that the statement failed."""
        parts = [self._state_of_file(answered)] if self._in_file else []
        if self.applied and not (self.scope is Scope.ALL and not self.broken_by):
            parts.append(f"applied before it, and staying: {', '.join(self.applied)}")
        return "; ".join(parts) or "nothing was changed in the database"

    def _state_of_file(self, answered: bool) -> str:
        if self.phase is Phase.COMMIT and not answered:
            return "whether the commit came through is not known; the next run reads it from the ledger"
        if self.scope is Scope.NOTHING:
            return (
                f"it runs without a transaction, so its first {self.done} of {self.total} statements are in effect, "
                f"and the ledger holds it as started"
            )
        if self.broken_by:
            return f"{self.broken_by!r} ends the transaction itself, so what ran up to there stays"
        if self.scope is Scope.ALL:
            return "all pending migrations were rolled back: the database is as it was before"
        return "the file was rolled back: nothing of it is in the database"

    def advice(self) -> str:
        """What to do about a file that failed."""
        if not self._in_file:
            return "then start or reload again"
        if self.scope is Scope.NOTHING:
            return unfinished_advice(self.app, self.file)
        return (
            "correct the file (it counts as not applied, so it may be edited) and start or reload again; "
            "migrations only go forward, none is undone"
        )


def unfinished_advice(app: str, file: str) -> str:
    """What to do about a file without a transaction that began and did not end."""
    return (
        f"find out which of its statements took effect and undo or finish them by hand, then either "
        f"{row_statement(app, file)} to have it run from its start, or "
        f"{row_statement(app, file, 'applied_at = now()')} to count it as applied; "
        f"or, if running it again does no harm, say so in its first line: `-- supervisor: no-transaction, idempotent`"
    )


def row_statement(app: str, file: str, change: str = "") -> str:
    """The statement people are told to run on a file's ledger row: an UPDATE that makes `change`, or a DELETE."""
    table = "supervisor.migrations"
    verb = f"UPDATE {table} SET {change}" if change else f"DELETE FROM {table}"  # noqa: S608 (for people to read)
    return f"`{verb} WHERE (app, name) = ('{app}', '{file}')`"


def explain_failure(progress: Progress, error: asyncpg.PostgresError) -> str:
    """The whole text for a statement the server refused."""
    hint = _ADVICE.get(error.sqlstate or "")
    advice = "; ".join(filter(None, (hint, progress.advice())))
    return (
        f"cannot apply {progress.thing()}: {progress.place(_position(error))}{describe_error(error)}; "
        f"{progress.state()}; {advice}"
    )


def explain_lost(progress: Progress, why: str) -> str:
    """The whole text for a connection that ended half-way."""
    return (
        f"cannot apply {progress.thing()}: {progress.place()}the connection to the database was lost ({why}); "
        f"{progress.state(answered=False)}; see that the database runs, then start or reload again"
    )


def explain_deadline(progress: Progress, deadline_seconds: float) -> str:
    """The whole text for a run that took too long; its statement was cancelled."""
    if progress.phase is Phase.LOCK:
        return (
            f"cannot apply {progress.what}: another supervisor held the migration lock for all of "
            f"{deadline_seconds:g} s ({progress.holder or 'unknown holder'}); wait for it, or end it there with "
            f"SELECT pg_terminate_backend(pid), or raise SUPERVISOR_MIGRATE_SECONDS; nothing was changed"
        )
    return (
        f"cannot apply {progress.thing()}: {progress.place()}the deadline of {deadline_seconds:g} s "
        f"passed while {progress.phase}, so it was cancelled; {progress.state(answered=False)}; "
        f"raise SUPERVISOR_MIGRATE_SECONDS, or find what it waits for in pg_stat_activity; {progress.advice()}"
    )


def describe_error(error: asyncpg.PostgresError) -> str:
    """The server's words: message, SQLSTATE, detail, hint and, for errors inside a function, its context."""
    more = [f"SQLSTATE {error.sqlstate}"]
    for label, text in (("detail", error.detail), ("hint", error.hint), ("context", error.context)):
        if text:
            more.append(f"{label}: {shorten(text, 400)}")
    said = error.args[0] if error.args else type(error).__name__
    return f"{said} ({'; '.join(more)})"


def _position(error: asyncpg.PostgresError) -> int | None:
    return int(error.position) if error.position else None
