"""Bodies without an end: JSON lines or server-sent events for as long as the client listens."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Protocol

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

JSON_LINES = "application/x-ndjson"
SERVER_SENT_EVENTS = "text/event-stream"


class LogLine(Protocol):
    """One line of a child's output."""

    @property
    def at(self) -> datetime:
        """When it was read."""

    def as_dict(self) -> dict[str, object]:
        """JSON-ready."""


class LogRing(Protocol):
    """The last lines of one source (`process.output.Ring`)."""

    @property
    def number(self) -> int:
        """The number of the newest line."""

    def tail(self, count: int) -> Sequence[LogLine]:
        """The last `count` lines, oldest first."""

    def follow(self, number: int) -> AsyncIterator[LogLine]:
        """Lines newer than `number`, for ever; a slow reader loses the oldest."""


class Stream(Response):
    """Sends what `opened` gives until the client hangs up or `ending` is set; what was opened is closed at once."""

    def __init__(
        self,
        opened: AbstractAsyncContextManager[AsyncIterator[Any]],
        *,
        encode: Callable[[Any], bytes],
        media_type: str,
        ending: anyio.Event,
    ) -> None:
        super().__init__(media_type=media_type)
        self._opened = opened
        self._encode = encode
        self._ending = ending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it; ASGI's signature."""
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        async with anyio.create_task_group() as group:
            group.start_soon(cancel_on_hang_up, receive, group.cancel_scope)
            group.start_soon(self._cancel_on_ending, group.cancel_scope)
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with self._opened as values:
                async for value in values:
                    await send({"type": "http.response.body", "body": self._encode(value), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _cancel_on_ending(self, scope: anyio.CancelScope) -> None:
        await self._ending.wait()
        scope.cancel()


async def cancel_on_hang_up(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel `scope` when the client is gone; the body must have been read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


@contextlib.asynccontextmanager
async def followed(rings: Sequence[LogRing], count: int) -> AsyncIterator[AsyncIterator[LogLine]]:
    """The last `count` lines of all rings, then new ones as they come."""
    backlog = merged_tail(rings, count)
    send, receive = anyio.create_memory_object_stream[LogLine](0)

    async def pump(ring: LogRing, number: int) -> None:
        async for line in ring.follow(number):
            await send.send(line)

    async def lines() -> AsyncIterator[LogLine]:
        for line in backlog:
            yield line
        async for line in receive:
            yield line

    with send, receive:
        async with anyio.create_task_group() as group:
            for ring in rings:
                group.start_soon(pump, ring, ring.number)
            yield lines()
            group.cancel_scope.cancel()


def merged_tail(rings: Sequence[LogRing], count: int) -> list[LogLine]:
    """The last `count` lines of all rings together, by time."""
    lines = [line for ring in rings for line in ring.tail(count)]
    lines.sort(key=lambda line: line.at)
    return lines[-count:] if count else []


def as_json_line(value: Any) -> bytes:
    """One line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=str).encode(errors="replace") + b"\n"


def as_server_sent_event(event: dict[str, Any]) -> bytes:
    """An event in the format of the HTML standard, section 9.2; its number is its id."""
    number = f"id: {event['n']}\n" if "n" in event else ""
    return f"{number}event: {event['event']}\ndata: ".encode() + as_json_line(event) + b"\n"
