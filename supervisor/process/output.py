"""Output of children: pipes to lines, and a bounded ring of the last ones for each source."""

from __future__ import annotations

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
_READ_BYTES = 8 * 1024  # a turn's worth: `yes` makes 4,096 lines of it, and the loop waits for them
_PIPE_BYTES = 64 * 1024  # what a pipe holds, pipe(7)


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
        self._bytes += _cost(text)
        while self._bytes > self._max_bytes and len(self._lines) > 1:
            self._bytes -= _cost(self._lines.popleft().text)
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


def _cost(text: str) -> int:
    """Bytes of memory, at most: one character outside ASCII may make all of them four bytes wide."""
    return (len(text) if text.isascii() else 4 * len(text)) + _LINE_OVERHEAD


class Framer:
    """Cuts a byte stream into lines; a line beyond `MAX_LINE_BYTES` is delivered in pieces, so memory stays bounded.

    How the stream is chunked makes no difference, and no piece ends within a UTF-8 character.
    """

    def __init__(self, deliver: Callable[[str], None]) -> None:
        self._deliver = deliver
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; every whole line is delivered before this returns."""
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._deliver(_text(self._pieces(line.removesuffix(b"\r"))))
        # A CR at the end may belong to a line end still to come, so it does not make the line too long yet.
        held = b"\r" if rest.endswith(b"\r") else b""
        self._rest = self._pieces(rest.removesuffix(b"\r")) + held

    def close(self) -> None:
        """Deliver what stands without a newline."""
        if self._rest:
            self._deliver(_text(self._pieces(self._rest)))
            self._rest = b""

    def _pieces(self, line: bytes) -> bytes:
        """Deliver pieces of `line` until what is left, which is given back, fits in one."""
        while len(line) > MAX_LINE_BYTES:
            cut = _cut(line)
            self._deliver(_text(line[:cut]))
            line = line[cut:]
        return line


def _cut(line: bytes) -> int:
    """Where to cut an overlong line: at the limit, or up to three bytes before it to spare a character."""
    for cut in range(MAX_LINE_BYTES, MAX_LINE_BYTES - 4, -1):
        if line[cut] & 0xC0 != 0x80:  # not a continuation byte
            return cut
    return MAX_LINE_BYTES


def _text(line: bytes) -> str:
    return line.decode(errors="replace")


class Pump:
    """Moves one pipe of a child (a non-blocking read end, closed by `run`) into a ring, line by line."""

    def __init__(self, descriptor: int, ring: Ring, stream: str) -> None:
        self._descriptor = descriptor
        self._framer = Framer(lambda text: ring.add(text, stream))
        self._ended = False

    async def run(self) -> None:
        """Read until the end of the pipe, which is when everybody who holds it is gone.

        Cancelling takes what is already in the pipe along, so the last words of a killed process are kept.
        """
        try:
            while not self._ended:
                await anyio.wait_readable(self._descriptor)
                self._read()
        finally:
            try:
                self.drain()
                self._framer.close()
            finally:
                os.close(self._descriptor)
                self._ended = True

    def drain(self) -> None:
        """Take what is in the pipe now, one pipe's worth at most as a flooder fills it again; never blocks."""
        for _ in range(_PIPE_BYTES // _READ_BYTES):
            if self._ended or not self._read():
                return

    def _read(self) -> bool:
        """Take one turn's worth; False when the pipe is empty or at its end."""
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._framer.close()
            self._ended = True
            return False
        self._framer.feed(data)
        return True
