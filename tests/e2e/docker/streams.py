"""Clients of the echo app, made by hand: streams, which say when they were ended, and a slow request."""

from __future__ import annotations

import http.client
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol
from urllib.parse import urlsplit

_LIMIT_SECONDS = 30.0
_UPGRADE = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # for that key, RFC 6455 section 1.3


class Stream(Protocol):
    """A stream of the echo app."""

    def version(self) -> int:
        """Of the generation that serves it, asked over it or read from it now."""

    def ended_at(self) -> float:
        """Wait until it is closed; when that was, in monotonic seconds."""

    def close(self) -> None:
        """From our side."""


class EventStream:
    """Server-sent events."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_LIMIT_SECONDS)
        # Else Traefik would keep the connection when the answer is over.
        self._connection.request("GET", "/events", headers={"Accept": "text/event-stream", "Connection": "close"})
        self._answer = self._connection.getresponse()
        assert self._answer.status == 200

    def version(self) -> int:
        line = self._answer.readline()
        while not line.startswith(b"data: "):
            assert line, "it was ended"
            line = self._answer.readline()
        return int(line.split()[2])

    def ended_at(self) -> float:
        with suppress(OSError, http.client.IncompleteRead):
            while self._answer.readline():
                pass
        return time.monotonic()

    def close(self) -> None:
        self._connection.close()
        self._answer.close()


class WebSocket:
    """Short text frames, each echoed."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), timeout=_LIMIT_SECONDS)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(_UPGRADE)
        head = b"".join(iter(self._file.readline, b"\r\n"))
        assert head.startswith(b"HTTP/1.1 101"), head
        assert _ACCEPTED in head

    def version(self) -> int:
        mask = secrets.token_bytes(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(b"hello"))
        self._socket.sendall(bytes([0x81, 0x80 | len(masked)]) + mask + masked)
        head = self._file.read(2)
        assert head, "it was ended"
        text, _, version = self._file.read(head[1]).partition(b" ")
        assert text == b"hello"
        return int(version)

    def ended_at(self) -> float:
        with suppress(OSError):
            while self._file.read(1):
                pass
        return time.monotonic()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@contextmanager
def slow_request(port: int, seconds: float) -> Iterator[Callable[[], int]]:
    """A POST that the app has in hand, and answers after so long; gives what waits for the answer's status."""
    with socket.create_connection(("127.0.0.1", port), timeout=_LIMIT_SECONDS) as client:
        head = f"POST /slow/{seconds:g} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n"
        client.sendall(head.encode())
        # It asks for the body only once it has the request.
        assert client.recv(1000).startswith(b"HTTP/1.1 100")
        client.sendall(b"patience")

        def status() -> int:
            with http.client.HTTPResponse(client) as answer:
                answer.begin()
                return answer.status

        yield status
