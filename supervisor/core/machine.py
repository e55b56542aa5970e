"""A checked state: one table of allowed moves, one method that writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)


class IllegalMoveError(Exception):
    """A move the table does not have: always a programming error."""


class Machine(Generic[S]):
    """Holds one state, refuses moves its table lacks, and tells `on_change(old, new, reason)` of each move.

    `since` is the monotonic time of the last move, in seconds. A move to the state it is in is a no-op.
    """

    def __init__(
        self, initial: S, moves: Mapping[S, frozenset[S]], on_change: Callable[[S, S, str], None] | None = None
    ) -> None:
        self._state = initial
        self._moves = moves
        self._on_change = on_change
        self.reason = ""
        self.since = time.monotonic()

    @property
    def state(self) -> S:
        """The state now."""
        return self._state

    def can(self, new: S) -> bool:
        """Whether `to(new)` would be allowed."""
        return new == self._state or new in self._moves[self._state]

    def to(self, new: S, reason: str = "") -> None:
        """Move to `new`; raises `IllegalMoveError` when the table lacks the move."""
        old = self._state
        if new == old:
            return
        if new not in self._moves[old]:
            raise IllegalMoveError(f"no move from {old!r} to {new!r} ({reason})")
        self._state, self.reason, self.since = new, reason, time.monotonic()
        if self._on_change is not None:
            self._on_change(old, new, reason)
