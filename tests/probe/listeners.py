"""Small servers that misbehave in one way each, on a loopback port of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import anyio
from anyio.abc import SocketAttribute, SocketStream

from tests.e2e.harness import free_port

Handler = Callable[[SocketStream], Awaitable[None]]


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[int]:
    """Serve every connection with `handler`; gives the port."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(SocketAttribute.local_port)

    async def handle(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                await handler(stream)

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        try:
            yield port
        finally:
            group.cancel_scope.cancel()


async def silence(stream: SocketStream) -> None:
    """Accepts and never answers."""
    await anyio.sleep_forever()


async def hang_up(stream: SocketStream) -> None:
    """Closes at once."""


def answer(data: bytes) -> Handler:
    """Sends `data` after the first bytes of a request."""

    async def handler(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(data)

    return handler


def closed_port() -> int:
    """A loopback port nobody listens on."""
    return free_port()
