"""How many requests a generation that crashed had in its hands: they end without an answer, and are not sent again."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import anyio

from supervisor.app.front.model import Front, traffic_of
from supervisor.app.run import Run

_NOTE_SECONDS = 10.0
_LOOK_SECONDS = 0.005


class Losses:
    """Of one front, generation after generation."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._noted: WeakKeyDictionary[Run, int | None] = WeakKeyDictionary()

    async def watch(self, run: Run) -> None:
        """Note now and then what `run` lost so far, so that its end is told its own only. Until cancelled."""
        while True:
            traffic = await traffic_of(self._front, run.place)
            self._noted[run] = traffic.lost if traffic is not None else None
            await anyio.sleep(_NOTE_SECONDS)

    async def of(self, run: Run, patience_seconds: float) -> int | None:
        """How many it lost since that was noted last; None where it is not known.

        Counted once none is in flight there, or when patience ends.
        """
        before = self._noted.get(run, 0)  # one that ends before the first note has lost what the front counts at all
        if before is None:
            return None
        found = None
        with anyio.move_on_after(patience_seconds):
            while traffic := await traffic_of(self._front, run.place):
                found = max(found or before, traffic.lost)  # a place that was given back has no counts
                if not traffic.in_flight + traffic.streams:
                    break
                await anyio.sleep(_LOOK_SECONDS)
        return None if found is None else found - before
