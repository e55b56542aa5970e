"""How many requests a generation that crashed had in its hands: they end without an answer, and are not sent again."""

from __future__ import annotations

import anyio

from supervisor.app.front.model import Front, traffic_of
from supervisor.app.run import Run

_NOTE_SECONDS = 10.0
_LOOK_SECONDS = 0.1


class Losses:
    """Of one front, generation after generation."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._run: Run | None = None
        self._noted: int | None = None

    async def watch(self, run: Run) -> None:
        """Note now and then what `run` lost so far, so that its end is told its own only. Until cancelled."""
        self._run, self._noted = run, None
        while True:
            traffic = await traffic_of(self._front, run.place)
            self._noted = traffic.lost if traffic is not None else None
            await anyio.sleep(_NOTE_SECONDS)

    async def of(self, run: Run) -> int | None:
        """How many it lost since that was noted last; None where it is not known.

        Counted once none is in flight there, or after a tenth of a second.
        """
        before = found = self._noted if self._run is run else None
        if before is None or found is None:
            return None
        with anyio.move_on_after(_LOOK_SECONDS):
            while traffic := await traffic_of(self._front, run.place):
                found = max(found, traffic.lost)  # a place that was given back has no counts
                if not traffic.in_flight + traffic.streams:
                    break
                await anyio.sleep(_LOOK_SECONDS / 20)
        return found - before
