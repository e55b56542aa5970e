"""Output of children: pipes to lines, and a bounded ring of the last ones for each source."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

MAX_LINE_BYTES = 16 * 1024
RING_BYTES = 1024 * 1024
_FOLLOWER_LINES = 10_000
_LINE_OVERHEAD = 200  # bytes a Line costs beside its text


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


OnLine = Callable[[Line], None]


class Ring:
    """The last lines of one source, at most `max_bytes` of them; writing never waits for a reader.

    A follower too slow to keep up loses its oldest lines, never stalls the source.
    """

    def __init__(self, source: str, *, max_bytes: int = RING_BYTES, on_line: OnLine | None = None) -> None:
        self.source = source
        self._max_bytes = max_bytes
        self._bytes = 0
        self._number = 0
        self._lines: deque[Line] = deque()
        self._on_line = on_line
        self._wakers: set[anyio.Event] = set()

    def add(self, text: str, stream: str = "stdout") -> None:
        """Append a line and wake followers; drops the oldest lines beyond the size."""
        self._number += 1
        line = Line(self._number, datetime.now(UTC), self.source, stream, text)
        self._lines.append(line)
        self._bytes += len(text) + _LINE_OVERHEAD
        while self._bytes > self._max_bytes and len(self._lines) > 1:
            self._bytes -= len(self._lines.popleft().text) + _LINE_OVERHEAD
        if self._on_line is not None:
            self._on_line(line)
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


class Framer:
    """Cuts a byte stream into lines; a line beyond `MAX_LINE_BYTES` is delivered in pieces, so memory stays bounded."""

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; every whole line is delivered before this returns."""
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._emit(line.removesuffix(b"\r"))
        while len(rest) > MAX_LINE_BYTES:
            self._emit(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._rest = rest

    def close(self) -> None:
        """Deliver what stands without a newline."""
        if self._rest:
            self._emit(self._rest)
            self._rest = b""

    def _emit(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), MAX_LINE_BYTES):
            self._deliver(line[start : start + MAX_LINE_BYTES].decode(errors="replace"))


async def pump(descriptor: int, ring: Ring, stream: str) -> None:
    """Read `descriptor` (a non-blocking pipe end, closed here) into `ring` until its end.

    Cancelling takes what is already in the pipe along, so the last words of a killed process are kept.
    """
    framer = Framer(lambda text: ring.add(text, stream))
    try:
        while True:
            await anyio.wait_readable(descriptor)
            try:
                data = os.read(descriptor, 65536)
            except BlockingIOError:
                continue
            if not data:
                return
            framer.feed(data)
    finally:
        with contextlib.suppress(OSError):
            for _ in range(16):  # at most one pipe's worth (1 MiB)
                data = os.read(descriptor, 65536)
                if not data:
                    break
                framer.feed(data)
        framer.close()
        os.close(descriptor)
