"""Output of children: lines, and a bounded ring of the last ones for each source."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import anyio

from supervisor.process.framer import Framer, KeepWhole
from supervisor.process.meter import Meter, Rate

RING_BYTES = 1024 * 1024
_FOLLOWER_LINES = 10_000
_LINE_OVERHEAD = 200  # bytes a Line costs beside its text
GAP = "supervisor"
"""The stream of the line that stands in a ring in the place of dropped ones."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of output, without its newline; `number` rises by one a line within a source."""

    number: int
    at: datetime
    source: str
    stream: str
    text: str

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""
        at = self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"n": self.number, "at": at, "source": self.source, "stream": self.stream, "text": self.text}

    @property
    def cost_bytes(self) -> int:
        """Bytes of memory, at most."""
        return text_bytes(self.text) + _LINE_OVERHEAD


@dataclass(frozen=True, slots=True)
class Dropped:
    """Output of a stream that was read and thrown away, as it came faster than `rate`."""

    source: str
    stream: str
    lines: int
    bytes: int
    rate: Rate

    @property
    def reason(self) -> str:
        """For people."""
        return f"log lines dropped: {self.source} printed faster than {self.rate}"


OnLine = Callable[[Line], None]
OnDropped = Callable[[Dropped], None]


class Ring:
    """The last lines of one source, at most `max_bytes` of them; writing never waits for a reader.

    A follower too slow to keep up loses its oldest lines, never stalls the source. `rate` is the limit of each of its
    streams, none by default: what is beyond it is counted and told to `on_dropped`, for each process that prints once a
    second at most and once at its end, and a line in the ring says so. `keep_whole` see `Framer`.
    """

    def __init__(
        self,
        source: str,
        *,
        max_bytes: int = RING_BYTES,
        on_line: OnLine | None = None,
        rate: Rate | None = None,
        on_dropped: OnDropped | None = None,
        keep_whole: KeepWhole | None = None,
    ) -> None:
        self.source = source
        self.keep_whole = keep_whole
        self.lines_dropped = 0
        self.bytes_dropped = 0
        self._rate = rate or Rate(0, 0)
        self._meters: dict[str, Meter] = {}
        self._on_dropped = on_dropped
        self._max_bytes = max_bytes
        self._bytes = 0
        self._number = 0
        self._lines: deque[Line] = deque()
        self._on_line = on_line
        self._wakers: set[anyio.Event] = set()

    def add(self, text: str, stream: str = "stdout") -> None:
        """Append a line and wake followers; drops the oldest lines beyond the size."""
        line = self._append(text, stream)
        if self._on_line is not None:
            self._on_line(line)

    def framer(self, stream: str) -> Framer:
        """What makes lines of this ring out of bytes."""
        return Framer(partial(self.add, stream=stream), self.keep_whole)

    def meter(self, stream: str) -> Meter:
        """The one meter of a stream, whoever prints to it: a flood of errors does not cost the other one's lines."""
        if stream not in self._meters:
            self._meters[stream] = Meter(self._rate, time.monotonic())
        return self._meters[stream]

    def lost(self, stream: str, lines: int, size_bytes: int) -> None:
        """Note that so much was dropped; a last line of it may have been cut, so `lines` may be 0."""
        self.lines_dropped += lines
        self.bytes_dropped += size_bytes
        dropped = Dropped(self.source, stream, lines, size_bytes, self._rate)
        self._append(f"{dropped.reason}, count={lines}, bytes={size_bytes}", GAP)
        if self._on_dropped is not None:
            self._on_dropped(dropped)

    def _append(self, text: str, stream: str) -> Line:
        self._number += 1
        line = Line(self._number, datetime.now(UTC), self.source, stream, text)
        self._lines.append(line)
        self._bytes += line.cost_bytes
        while self._bytes > self._max_bytes and len(self._lines) > 1:
            self._bytes -= self._lines.popleft().cost_bytes
        self._wake()
        return line

    def _wake(self) -> None:
        wakers, self._wakers = self._wakers, set()
        for waker in wakers:
            waker.set()

    @property
    def number(self) -> int:
        """The number of the newest line, 0 before the first."""
        return self._number

    def tail(self, count: int) -> list[Line]:
        """The last `count` lines, oldest first."""
        if count <= 0:
            return []
        return list(self._lines)[-count:]

    def since(self, number: int) -> list[Line]:
        """Lines newer than `number` that are still kept, at most 10,000 of the newest."""
        fresh: list[Line] = []
        for line in reversed(self._lines):
            if line.number <= number or len(fresh) >= _FOLLOWER_LINES:
                break
            fresh.append(line)
        fresh.reverse()
        return fresh

    async def wait_newer(self, number: int) -> None:
        """Return as soon as a line newer than `number` is there."""
        while self._number <= number:
            waker = anyio.Event()
            self._wakers.add(waker)
            try:
                await waker.wait()
            finally:
                self._wakers.discard(waker)

    async def follow(self, number: int) -> AsyncIterator[Line]:
        """Lines newer than `number`, for ever."""
        while True:
            await self.wait_newer(number)
            for line in self.since(number):
                yield line
                number = line.number


def text_bytes(text: str) -> int:
    """Bytes of memory, at most: one character outside ASCII may make all of them four bytes wide."""
    return len(text) if text.isascii() else 4 * len(text)
