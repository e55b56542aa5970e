"""All that is written down of one app's releases: the state, the transaction in hand, the history.

Each change is durable once its method returns, and is never cut in half by a cancellation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from supervisor.releases.history import History, Line
from supervisor.releases.journal import Journal, JournalFile
from supervisor.releases.layout import Layout
from supervisor.releases.reserve import with_reserve
from supervisor.releases.state import State, StateFile, repair_links

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """A disk may take its time, and signals must not wait for it."""
    return await anyio.to_thread.run_sync(work)


class Records:
    """`state` is what the disk says. One writer at a time. `now` gives the time in UTC as text."""

    def __init__(self, layout: Layout, now: Callable[[], str]) -> None:
        self.layout = layout
        self.now = now
        self.state = State()
        self.history = History(layout.history)
        self._states, self._journals = StateFile(layout), JournalFile(layout)
        self._owed: list[Line] = []
        """Ends of transactions that are not in the history yet."""

    async def read(self) -> None:
        """What the disk says, where a write may have failed half-way. Raises ReleaseError."""
        self.state, _ = await _shielded(self._states.read)

    async def change(self, state: State, *, use_reserve: bool = True) -> None:
        """With its links; on a full disk in the room of the reserve. Raises OSError."""

        def do() -> None:
            self._states.write(state)
            repair_links(self.layout, state)

        await _shielded(lambda: with_reserve(self.layout, do) if use_reserve else do())
        self.state = state

    async def mark(self, journal: Journal) -> None:
        """How far the transaction in hand has come. Raises OSError."""

        def do() -> None:
            self._pay()
            self._journals.write(journal)

        await _shielded(do)

    def owe(self, journal: Journal, outcome: str, reason: str) -> None:
        """The transaction has ended so; its line is for the next `settle` or `mark` that the disk lets be done."""
        self._owed.append(history_line(journal, outcome, reason, self.now()))

    async def settle(self) -> None:
        """The lines that are owed to the history, then no transaction is in hand any more. Raises OSError."""

        def do() -> None:
            self._pay()
            self._journals.remove()

        await _shielded(lambda: with_reserve(self.layout, do))

    async def end(self, journal: Journal | None, outcome: str, reason: str) -> None:
        """Both, where there is a transaction. Raises OSError."""
        if journal is not None:
            self.owe(journal, outcome, reason)
        await self.settle()

    def _pay(self) -> None:
        while self._owed:
            self.history.append(self._owed[0])
            del self._owed[0]


def history_line(journal: Journal, outcome: str, reason: str, at: str) -> Line:
    """What the history says of a transaction."""
    return Line(
        at=at,
        actor=journal.actor,
        action=str(journal.action),
        before=journal.before,
        release=journal.release,
        outcome=outcome,
        reason=reason,
        digest=journal.digest,
        key=journal.key,
        transaction=journal.transaction,
        phases=journal.phases,
    )


async def _shielded(work: Callable[[], T]) -> T:
    found: list[T] = []
    with anyio.CancelScope(shield=True):
        found.append(await in_thread(work))
    return found[0]
