"""Runs the statements of files on a session, keeping account in a Progress. Thin: no decisions, no error texts."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.migrations.progress import Progress
from supervisor.migrations.script import Statement
from supervisor.migrations.session import Session

WHOLE_FROM = 2000
"""From this many statements on a transaction's file goes to the server in one piece: its errors then have a line only
where the server gives a position, but a data file of a hundred thousand rows does not cost as many round trips."""


async def run_statements(
    session: Session, statements: Sequence[Statement], progress: Progress, *, whole_from: int = 0
) -> None:
    """Run the file that `progress` is in, statement by statement; raises what asyncpg raises.

    With `whole_from`, a file of that many statements is sent whole; only inside a transaction is that the same.
    """
    if whole_from and len(statements) >= whole_from:
        statements = [Statement(progress.source, 0, 0, ())]
    for statement in statements:
        progress.statement = statement
        await session.execute(statement.text)
        progress.done += 1
        if statement.ends_transaction:
            progress.broken_by = progress.broken_by or progress.file
    progress.statement = None
