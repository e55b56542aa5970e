"""Bytes of one stream into a ring, within its rate: what is beyond that is counted, and its last 64 KiB kept."""

from __future__ import annotations

import time
from collections.abc import Callable

import anyio

from supervisor.process.output import Ring
from supervisor.process.tail import Tail


class Intake:
    """Shows what comes while the rate allows, else holds it: `hold` is cheap, `show` says what was dropped of it.

    One for each process that prints; the rate is that of the stream, whoever prints to it.
    """

    def __init__(self, ring: Ring, stream: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ring = ring
        self._stream = stream
        self._clock = clock
        self._framer = ring.framer(stream)
        self._meter = ring.meter(stream)
        self._tail = Tail(ring.keep_whole)

    @property
    def is_open(self) -> bool:
        """Whether lines may be shown now."""
        return self._meter.is_open(self._clock())

    @property
    def holds(self) -> bool:
        """Whether something waits to be shown, or to be told as dropped."""
        return bool(self._tail)

    @property
    def opens_in(self) -> float:
        """Seconds until what is held may be shown."""
        return max(0.0, self._meter.opens_at - self._clock())

    def take(self, data: bytes) -> bool:
        """Show as much as the rate allows, for an open one; False where some had to be held."""
        lines = data.count(b"\n")
        shown = len(data)
        if lines > (left := self._meter.lines_left):
            shown -= len(data.split(b"\n", left)[left])
            lines = left
        self._meter.charge(max(1, lines), shown, self._clock())
        self._framer.feed(data[:shown])
        if shown == len(data):
            return True
        self._meter.close(self._clock())
        self.hold(data[shown:])
        return False

    def hold(self, data: bytes | bytearray, size: int | None = None) -> None:
        """Show nothing of the first `size` bytes of `data` (None: of all) for now."""
        if not self._tail and (rest := self._framer.take_rest()):
            self._tail.push(rest, len(rest))
        self._tail.push(data, len(data) if size is None else size)

    def show(self) -> None:
        """Say what was dropped, then show what came last."""
        if not self._tail:
            return
        kept = self._tail.take()
        if kept.bytes:
            self._ring.lost(self._stream, kept.lines, kept.bytes)
        # Not charged: 64 KiB a second at most, and the last words of a crash must not cost those of the next run.
        self._framer.feed(kept.data)

    def feed(self, data: bytes) -> None:
        """Take, or hold, what came by itself; what is held waits for `show_when_open`."""
        if self.is_open:
            self.show()
            self.take(data)
        else:
            self.hold(data)

    async def show_when_open(self) -> None:
        """Wait until what is held may be shown, and show it; returns at once where nothing is."""
        while self.holds:
            await anyio.sleep(self.opens_in)
            if self.is_open:
                self.show()

    def close(self) -> None:
        """The stream has ended: show what is held, and what stands without a newline."""
        self.show()
        self._framer.close()
