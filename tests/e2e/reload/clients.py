"""Clients of the echo app, made by hand: streams, which say when they were ended, and a slow request."""

from __future__ import annotations

import http.client
import secrets
import socket
import time
from contextlib import suppress
from types import TracebackType
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
        self._socket = connect(url)
        self._file = self._socket.makefile("rb")
        self._socket.sendall(_UPGRADE)
        head = b"".join(iter(self._file.readline, b"\r\n"))
        assert head.startswith(b"HTTP/1.1 101"), head
        assert _ACCEPTED in head

    def echo(self, text: bytes) -> bytes:
        """What comes back: the text and the version; nothing where it was ended."""
        mask = secrets.token_bytes(4)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        self._socket.sendall(bytes([0x81, 0x80 | len(masked)]) + mask + masked)
        head = self._file.read(2)
        return self._file.read(head[1]) if head else b""

    def version(self) -> int:
        text, _, version = self.echo(b"hello").partition(b" ")
        assert text == b"hello", "it was ended"
        return int(version)

    def ended_at(self) -> float:
        with suppress(OSError):
            while self._file.read(1):
                pass
        return time.monotonic()

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class SlowRequest:
    """A POST that the app answers after so many seconds; within the block, once the app has it."""

    def __init__(self, url: str, seconds: float) -> None:
        self._socket = connect(url)
        head = f"POST /slow/{seconds:g} HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n\r\n"
        self._socket.sendall(head.encode())

    def __enter__(self) -> SlowRequest:
        # It asks for the body only once it has the request.
        assert self._socket.recv(1000).startswith(b"HTTP/1.1 100")
        self._socket.sendall(b"patience")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def answer(self) -> tuple[int, bytes]:
        """Wait for it; status 0 where the connection is closed without one."""
        answer = http.client.HTTPResponse(self._socket)
        try:
            answer.begin()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            answer.close()


def connect(url: str) -> socket.socket:
    """A connection to whoever serves `url`."""
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=_LIMIT_SECONDS)
