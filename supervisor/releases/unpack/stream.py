"""Bytes of a stream on demand: exactly so many, or what is at hand, without copies where that can be."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.releases.unpack.refusal import SEND_AGAIN, refusal, shown


class Stream:
    """`chunks` as one stream; `offset` is that of the next byte. Asks for the next chunk only when it is needed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = memoryview(b"")
        self._at = 0
        self._before = 0  # bytes of all chunks before this one

    @property
    def offset(self) -> int:
        """Of the next byte."""
        return self._before + self._at

    def take(self, count: int, what: str, name: str = "") -> bytes:
        """Exactly `count` bytes (bounded by the caller, as they are kept); an error says `what` and whose."""
        found = self.whole(count)
        return b"".join(self.pieces(count, what, name)) if found is None else bytes(found)

    def whole(self, count: int) -> memoryview | None:
        """Exactly `count` bytes where they are at hand, without a copy; None, and nothing taken, where they are not."""
        end = self._at + count
        if end > len(self._chunk):
            return None
        start, self._at = self._at, end
        return self._chunk[start:end]

    def pieces(self, count: int, what: str, name: str = "") -> Iterator[memoryview]:
        """The same in pieces as they come, each good until the next."""
        while count:
            if self._at == len(self._chunk) and not self._next():
                whole = f"{what} {shown(name)}" if name else what
                raise refusal(f"it ends in the middle of {whole}, at byte {self.offset} of the stream", SEND_AGAIN)
            piece = self._chunk[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def rest(self) -> Iterator[memoryview]:
        """All that is left, in pieces."""
        while self._at < len(self._chunk) or self._next():
            piece = self._chunk[self._at :]
            self._at = len(self._chunk)
            yield piece

    def _next(self) -> bool:
        for chunk in self._chunks:
            self._before += len(self._chunk)
            self._chunk, self._at = memoryview(chunk), 0
            return True
        return False
