"""The holding answer: while there is no app to serve, its port says so (503, Retry-After, the reason)."""

from __future__ import annotations

import contextlib
import json
import socket

import anyio
import h11
from anyio.abc import SocketStream, TaskStatus

_REQUEST_SECONDS = 5.0
_CONNECTIONS = 256
RETRY_AFTER_SECONDS = 5


class Holder:
    """Answers every request on `port` with 503 and `reason`, until cancelled. At most 256 connections at a time."""

    def __init__(self, app: str, port: int, reason: str) -> None:
        self._app = app
        self._port = port
        self._reason = reason
        self._limit = anyio.CapacityLimiter(_CONNECTIONS)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve; ready once the port is bound. Raises OSError when it is taken."""
        listener = await anyio.create_tcp_listener(
            local_host="0.0.0.0", local_port=self._port, family=socket.AF_INET, reuse_port=False
        )
        async with listener:
            task_status.started()
            await listener.serve(self._answer)

    async def _answer(self, stream: SocketStream) -> None:
        async with stream:
            with anyio.move_on_after(_REQUEST_SECONDS), contextlib.suppress(anyio.BrokenResourceError, OSError):
                async with self._limit:
                    await self._exchange(stream)

    async def _exchange(self, stream: SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        request = await _read_request(connection, stream)
        if request is None:
            return
        accepts_json = any(name == b"accept" and b"json" in value for name, value in request.headers)
        body = self._body(accepts_json)
        headers = [
            ("content-type", "application/json" if accepts_json else "text/plain; charset=utf-8"),
            ("content-length", str(len(body))),
            ("retry-after", str(RETRY_AFTER_SECONDS)),
            ("cache-control", "no-store"),
            ("connection", "close"),
        ]
        response = h11.Response(status_code=503, headers=headers, reason=b"Service Unavailable")
        parts = [connection.send(response)]
        if request.method != b"HEAD":
            parts.append(connection.send(h11.Data(data=body)))
        await stream.send(b"".join(part for part in parts if part))

    def _body(self, as_json: bool) -> bytes:
        if as_json:
            return json.dumps({"app": self._app, "state": "failed", "reason": self._reason}).encode()
        return f"{self._app} is not running: {self._reason}\n".encode()


async def _read_request(connection: h11.Connection, stream: SocketStream) -> h11.Request | None:
    """The request's head; None where the peer leaves or speaks no HTTP."""
    with contextlib.suppress(h11.RemoteProtocolError, anyio.EndOfStream):
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                return event
            if event is not h11.NEED_DATA:
                return None
            connection.receive_data(await stream.receive())
    return None
