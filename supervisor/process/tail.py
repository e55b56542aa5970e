"""The newest bytes of output that is dropped, and the count of the rest. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.process.framer import AHEAD_BYTES, KeepWhole

TAIL_BYTES = 64 * 1024
TAIL_LINES = 1000


@dataclass(frozen=True, slots=True)
class Kept:
    """`data` is to be shown; `lines` and `bytes` of what stood before it are gone."""

    data: bytes
    lines: int
    bytes: int


class Tail:
    """Takes what nobody shall see, cheaply: a count of newlines and at most 64 KiB kept."""

    def __init__(self, keep_whole: KeepWhole | None = None) -> None:
        self._keep_whole = keep_whole
        self._kept = b""
        self._lines = 0
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept or self._bytes)

    def push(self, data: bytes | bytearray, size: int) -> None:
        """Take the first `size` bytes of `data`, which is copied only where it is kept."""
        if size < TAIL_BYTES:
            data = self._kept + data[:size]
            size = len(data)
        else:
            self._count(self._kept, len(self._kept))
        over = max(0, size - TAIL_BYTES)
        self._count(data, over)
        self._kept = bytes(memoryview(data)[over:size])

    def take(self) -> Kept:
        """What is kept, of whole lines where there are any, at most 1,000; empty after."""
        if self._bytes:
            self._drop(_first_whole(self._kept, self._keep_whole))
        older = self._kept.rsplit(b"\n", TAIL_LINES + 1)
        if len(older) > TAIL_LINES + 1:
            self._drop(len(older[0]) + 1)
        kept = Kept(self._kept, self._lines, self._bytes)
        self._kept, self._lines, self._bytes = b"", 0, 0
        return kept

    def _drop(self, size: int) -> None:
        self._count(self._kept, size)
        self._kept = self._kept[size:]

    def _count(self, data: bytes | bytearray, size: int) -> None:
        self._lines += data.count(b"\n", 0, size)
        self._bytes += size


def _first_whole(data: bytes, keep_whole: KeepWhole | None) -> int:
    """Where to begin in what was cut off anywhere: at a line; in an endless one behind what may be half a secret."""
    newline = data.find(b"\n", 0, len(data) - 1)
    if newline >= 0:
        return newline + 1
    start = min(AHEAD_BYTES, len(data) // 2)
    if keep_whole is not None:
        start = keep_whole(data, start)
    while start < len(data) and data[start] & 0xC0 == 0x80:  # within a UTF-8 character
        start += 1
    return start
