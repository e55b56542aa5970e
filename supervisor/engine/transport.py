"""One HTTP request to an engine, on a connection of its own and within a limit. Blocks: for worker threads.

Not the engine's client: this asks who is there at all, of things that may be dead, silent, or no engine.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.engine.facts import Connected, EngineAddress, Scheme, Tls

LIMIT_SECONDS = 2.0
_MAX_BODY_BYTES = 4 * 1024 * 1024  # a host with a thousand containers lists them in about 2 MiB
_MAX_HEAD_BYTES = 64 * 1024
_REFUSED = {FileNotFoundError: Connected.ABSENT, ConnectionRefusedError: Connected.REFUSED}


class ConnectError(Exception):
    """No connection; `result` says how it ended."""

    def __init__(self, result: Connected, detail: str) -> None:
        super().__init__(detail)
        self.result = result


class NoAnswerError(Exception):
    """Connected, but no HTTP answer: `TimeoutError` or `ValueError` as the cause, or none where it hung up."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; header names in lower case."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def connect(endpoint: EngineAddress, *, limit_seconds: float = LIMIT_SECONDS) -> socket.socket:
    """A connected socket, which the caller closes; raises ConnectError. Name lookup is not under the limit."""
    try:
        if endpoint.scheme is Scheme.UNIX:
            return _connect_unix(endpoint.path, limit_seconds)
        return _connect_tcp(endpoint, limit_seconds)
    except ssl.SSLError as error:
        raise ConnectError(Connected.TLS, _tls_reason(error)) from error
    except TimeoutError as error:
        raise ConnectError(Connected.TIMEOUT, f"no connection within {limit_seconds:g} s") from error
    except PermissionError as error:
        raise ConnectError(Connected.DENIED, error.strerror or str(error)) from error
    except OSError as error:
        raise ConnectError(_REFUSED.get(type(error), Connected.FAILED), error.strerror or str(error)) from error


def _connect_unix(path: str, limit_seconds: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # A listener whose queue is full blocks the caller; only SO_SNDTIMEO bounds that (a connect that does not
        # block fails at once there, and its socket reads as writable).
        whole, part = divmod(limit_seconds, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(whole), int(part * 1e6)))
        try:
            connection.connect(path)
        except BlockingIOError as error:
            raise TimeoutError from error
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_tcp(endpoint: EngineAddress, limit_seconds: float) -> socket.socket:
    context = _context(endpoint.tls) if endpoint.tls is not None else None
    connection = socket.create_connection((endpoint.host, endpoint.port), timeout=limit_seconds)
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=endpoint.host)
    except BaseException:
        connection.close()
        raise


def _context(tls: Tls) -> ssl.SSLContext:
    folder = Path(tls.folder)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not tls.verify:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    try:
        made.load_verify_locations(folder / "ca.pem")
        if (folder / "cert.pem").exists():
            made.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except ssl.SSLError as error:
        raise ConnectError(Connected.TLS, f"{tls.folder}: {_tls_reason(error)}") from error
    except OSError as error:
        raise ConnectError(Connected.TLS, f"{error.filename or tls.folder}: {error.strerror}") from error
    return made


def _tls_reason(error: ssl.SSLError) -> str:
    return getattr(error, "verify_message", "") or error.reason or str(error)


def ask(endpoint: EngineAddress, path: str, *, method: str = "GET", limit_seconds: float = LIMIT_SECONDS) -> Answer:
    """One request on a new connection. Raises ConnectError, or NoAnswerError."""
    with contextlib.closing(connect(endpoint, limit_seconds=limit_seconds)) as connection:
        return exchange(connection, path, method=method, limit_seconds=limit_seconds)


def exchange(
    connection: socket.socket, path: str, *, method: str = "GET", limit_seconds: float = LIMIT_SECONDS
) -> Answer:
    """One request on a connected socket, as HTTP/1.0 so that the answer ends with the connection and is never
    chunked. The limit is on the whole, however slowly it dribbles in. Raises NoAnswerError."""
    until = time.monotonic() + limit_seconds
    request = f"{method} {path} HTTP/1.0\r\nHost: docker\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    try:
        connection.settimeout(limit_seconds)
        with contextlib.suppress(BrokenPipeError):  # a proxy may have answered and hung up already
            connection.sendall(request.encode())
        return _parse(_read(connection, until))
    except TimeoutError as error:
        raise NoAnswerError(f"silent for {limit_seconds:g} s") from error
    except OSError as error:
        raise NoAnswerError(error.strerror or str(error)) from None


def _read(connection: socket.socket, until: float) -> bytes:
    answer = bytearray()
    while len(answer) < _MAX_BODY_BYTES and not _is_whole(answer):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        part = connection.recv(65536)
        if not part:
            break
        answer += part
    return bytes(answer)


def _is_whole(answer: bytearray) -> bool:
    """By its own count; a server that keeps the connection open must not cost us the limit."""
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return len(head) > _MAX_HEAD_BYTES or (len(head) >= 5 and not head.startswith(b"HTTP/"))
    length = _headers(head).get("content-length", "")
    return length.isdecimal() and len(body) >= int(length)


def _parse(answer: bytes) -> Answer:
    if not answer:
        raise NoAnswerError("it hung up without an answer")
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(maxsplit=2)
    if not separator or len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        raise NoAnswerError(f"it answered {answer[:40]!r}") from ValueError("not HTTP")
    return Answer(int(words[1]), _headers(head), _unchunked(_headers(head), body))


def _headers(head: bytes | bytearray) -> dict[str, str]:
    pairs = (line.partition(":") for line in bytes(head).decode("latin-1").split("\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _unchunked(headers: dict[str, str], body: bytes) -> bytes:
    """A proxy may chunk though HTTP/1.0 has no chunks."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return body
    parts: list[bytes] = []
    with contextlib.suppress(ValueError):
        while body:
            size, _, body = body.partition(b"\r\n")
            length = int(size.split(b";")[0], 16)
            parts.append(body[:length])
            body = body[length + 2 :]
    return b"".join(parts)
