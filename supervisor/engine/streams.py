"""Decoders of the engine's endless answers, fed with bytes as they come: JSON lines, and framed output."""

from __future__ import annotations

import json
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_HEADER = struct.Struct(">BxxxL")
_NAMES = {0: "stdin", 1: "stdout", 2: "stderr"}


class JsonLines:
    """One JSON object a line, as events and progress come."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The objects that are whole with `data`. Raises ValueError for a line that is no JSON."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]


@dataclass(frozen=True)
class Output:
    """A piece of a container's output; `stream` is `stdout` or `stderr`."""

    stream: str
    data: bytes


class Frames:
    """Output of a container: framed with 8-byte headers, or plain where it has a terminal.

    The format is that of `POST /containers/{id}/attach` in the Engine API's reference.
    """

    def __init__(self, *, terminal: bool = False) -> None:
        self._terminal = terminal
        self._rest = b""

    @property
    def is_whole(self) -> bool:
        """Whether nothing of a piece is still to come."""
        return not self._rest

    def feed(self, data: bytes) -> list[Output]:
        """The pieces that are whole with `data`."""
        if self._terminal:
            return [Output("stdout", data)] if data else []
        held = self._rest + data
        pieces: list[Output] = []
        start = 0
        while len(held) - start >= _HEADER.size:
            kind, length = _HEADER.unpack_from(held, start)
            end = start + _HEADER.size + length
            if len(held) < end:
                break
            pieces.append(Output(_NAMES.get(kind, "stdout"), held[start + _HEADER.size : end]))
            start = end
        # Cut once: each line is a frame, and a cut for each would copy all that is behind it.
        self._rest = held[start:]
        return pieces


T = TypeVar("T")


class Decoded(Generic[T]):
    """An async iterator over what `feed` makes of pieces of bytes; what the pieces raise, it raises."""

    def __init__(self, chunks: AsyncIterator[bytes], feed: Callable[[bytes], Iterable[T]]) -> None:
        self._chunks = chunks
        self._feed = feed
        self._ready: deque[T] = deque()

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        while not self._ready:
            self._ready.extend(self._feed(await self._chunks.__anext__()))
        return self._ready.popleft()
