"""A small real app on a socket of its own, and a client that keeps its connection: both speak bytes, nothing helps."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import SocketAttribute, SocketStream

LIMIT_SECONDS = 20.0
UPGRADE: dict[str, Any] = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The example of RFC 6455, 1.3, whose answer is below."""
UPGRADED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
_GONE = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError)


@dataclass
class Request:
    """What reached the app."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class App:
    """Answers each request with who it is and what it got.

    `/slow` and streams go on until `release`; `/fail` is a 500; `/vanish` closes without an answer, `/reset`
    resets, `/half` closes within an answer.
    """

    name: str
    scope: anyio.CancelScope
    requests: list[Request] = field(default_factory=list)
    release: anyio.Event = field(default_factory=anyio.Event)

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            with suppress(*_GONE):
                reader = Reader(stream)
                while await self._one(stream, reader):
                    pass

    async def _one(self, stream: SocketStream, reader: Reader) -> bool:
        first, headers = await reader.head()
        method, path, _ = first.split(" ")
        request = Request(method, path, headers, await reader.body(headers))
        self.requests.append(request)
        if headers.get("upgrade") == "websocket":
            return await self._echo(stream, reader)
        if headers.get("accept") == "text/event-stream":
            return await self._events(stream)
        if path == "/vanish":
            return False
        if path == "/reset":
            raw = stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if path == "/half":
            await stream.send(answer(200, b"whole")[:-2])
            return False
        if path == "/slow":
            await self.release.wait()
        await stream.send(answer(500 if path == "/fail" else 200, self._report(request)))
        return headers.get("connection") != "close"

    def _report(self, request: Request) -> bytes:
        report = {"app": self.name, "method": request.method, "headers": request.headers, "size": len(request.body)}
        return json.dumps(report | {"sum": sum(request.body)}).encode()

    async def _echo(self, stream: SocketStream, reader: Reader) -> bool:
        await stream.send(UPGRADED)
        while True:
            await stream.send(await reader.some())

    async def _events(self, stream: SocketStream) -> bool:
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
        await self.release.wait()
        return False

    def crash(self) -> None:
        """Its socket and all connections are closed, as by the kernel at a KILL."""
        self.scope.cancel()


@dataclass
class Reader:
    """Reads messages from a stream."""

    stream: SocketStream
    left: bytes = b""

    async def some(self) -> bytes:
        """What is there, or comes next."""
        taken, self.left = self.left, b""
        return taken or await self.stream.receive()

    async def until(self, end: bytes) -> bytes:
        while end not in self.left:
            self.left += await self.stream.receive()
        taken, _, self.left = self.left.partition(end)
        return taken

    async def exactly(self, size: int) -> bytes:
        while len(self.left) < size:
            self.left += await self.stream.receive()
        taken, self.left = self.left[:size], self.left[size:]
        return taken

    async def head(self) -> tuple[str, dict[str, str]]:
        """The first line, and the headers with names in lower case."""
        first, *lines = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        return first, {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    async def body(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int(await self.until(b"\r\n"), 16):
                parts.append(await self.exactly(size))
                await self.until(b"\r\n")
            await self.until(b"\r\n")
            return b"".join(parts)
        return await self.exactly(int(headers.get("content-length", "0")))


def answer(status: int, body: bytes, *headers: str) -> bytes:
    """The bytes of an answer."""
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def app_at(port: int, name: str = "app", *, host: str = "127.0.0.1") -> AsyncIterator[App]:
    """An app that listens on `port` until the end of the block, or its `crash`."""
    listener = await anyio.create_tcp_listener(local_host=host, local_port=port, backlog=4096)
    async with listener, anyio.create_task_group() as group:
        app = App(name, group.cancel_scope)
        group.start_soon(listener.serve, app.serve)
        yield app
        app.release.set()
        group.cancel_scope.cancel()


@dataclass
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def app(self) -> str:
        """Who answered."""
        return str(self.json()["app"])


class Client:
    """A client whose connection stays open from one request to the next; every answer within a limit."""

    def __init__(self, port: int, *, host: str = "127.0.0.1") -> None:
        self._port = port
        self._host = host

    async def __aenter__(self) -> Self:
        self.stream = await anyio.connect_tcp(self._host, self._port)
        self.reader = Reader(self.stream)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        await anyio.aclose_forcefully(self.stream)

    async def send(self, data: bytes) -> None:
        await self.stream.send(data)

    async def ask(self, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> Answer:
        """Underscores in the names of headers are hyphens."""
        await self.begin(method, path, body, **headers)
        return await self.answer()

    async def begin(self, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> None:
        """Send a request, and leave the answer."""
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        length = [f"Content-Length: {len(body)}"] if body else []
        head = [f"{method} {path} HTTP/1.1", "Host: app.example", *length, *lines]
        await self.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    async def answer(self, *, without_body: bool = False) -> Answer:
        """The next answer."""
        with anyio.fail_after(LIMIT_SECONDS):
            first, headers = await self.reader.head()
            body = b"" if without_body else await self.reader.body(headers)
        return Answer(int(first.split(" ")[1]), headers, body)


async def ask(port: int, method: str = "GET", path: str = "/", body: bytes = b"", **headers: str) -> Answer:
    """One request on a connection of its own."""
    async with Client(port) as client:
        return await client.ask(method, path, body, **headers)
