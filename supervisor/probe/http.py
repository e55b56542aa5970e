"""One HTTP GET, spoken with h11 (loaded for the control API anyway): no client library in an idle daemon."""

from __future__ import annotations

import ssl
from collections.abc import Container
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import h11
from anyio.abc import ByteStream

from supervisor.probe.tcp import explain_connect_error
from supervisor.probe.verdict import Verdict, good, waiting

MAX_BODY_BYTES = 64 * 1024
HEALTHY_STATUS = range(200, 400)


@dataclass(frozen=True)
class HttpAnswer:
    """What a GET gave; `status` is None where no HTTP answer came."""

    status: int | None
    verdict: Verdict


@dataclass(frozen=True)
class Target:
    """A URL taken apart; `path` has its query."""

    host: str
    port: int
    path: str
    tls: bool

    @classmethod
    def parse(cls, url: str) -> Target:
        """Raises ValueError for anything but an http or https URL with a host."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        tls = parts.scheme == "https"
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not path.isascii() or any(character <= " " for character in path):
            raise ValueError(f"{url!r} has blanks or letters outside ASCII; percent-encode them")
        return cls(parts.hostname, parts.port or (443 if tls else 80), path, tls)

    @property
    def authority(self) -> str:
        """`host:port` as a Host header has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


async def probe_http(
    url: str,
    *,
    host_header: str | None = None,
    limit_seconds: float = 3.0,
    expect: Container[int] = HEALTHY_STATUS,
) -> HttpAnswer:
    """GET `url` once; good when the status is in `expect`. Redirects are not followed, the body is read and dropped.

    `host_header` names another host than the one connected to. Raises ValueError for an unusable URL only.
    """
    target = Target.parse(url)
    try:
        with anyio.fail_after(limit_seconds):
            status = await _get(target, host_header or target.authority)
    except TimeoutError:
        return HttpAnswer(None, waiting(f"no answer from {url} within {limit_seconds:g} s"))
    except ssl.SSLError as error:
        return HttpAnswer(None, waiting(f"no TLS with {url}: {error.reason or error}"))
    except OSError as error:
        return HttpAnswer(None, waiting(f"cannot connect to {url}: {explain_connect_error(error)}"))
    except (anyio.BrokenResourceError, anyio.EndOfStream):
        return HttpAnswer(None, waiting(f"{url} closed the connection without an answer"))
    except h11.RemoteProtocolError as error:
        return HttpAnswer(None, waiting(f"{url} does not speak HTTP: {error}"))
    answered = f"{target.path} answered {status}"
    return HttpAnswer(status, good(answered) if status in expect else waiting(answered))


async def _get(target: Target, host_header: str) -> int:
    async with await _connect(target) as stream:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_BODY_BYTES)
        headers = [
            ("Host", host_header),
            ("User-Agent", "supervisor-probe"),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ]
        request = h11.Request(method="GET", target=target.path, headers=headers)
        await stream.send((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        return await _read_status(connection, stream)


async def _connect(target: Target) -> ByteStream:
    if target.tls:
        # Many servers close without TLS's own goodbye; the answer is whole by then.
        return await anyio.connect_tcp(target.host, target.port, tls=True, tls_standard_compatible=False)
    return await anyio.connect_tcp(target.host, target.port)


async def _read_status(connection: h11.Connection, stream: ByteStream) -> int:
    """The status, once the body has ended or 64 KiB of it were read: an app is not left writing into nowhere."""
    connection.receive_data(await stream.receive())
    status = 0
    read = 0
    while read < MAX_BODY_BYTES:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(await _receive_or_end(stream))
            case h11.Response(status_code=code):
                status = code
            case h11.Data(data=data):
                read += len(data)
            case h11.EndOfMessage() | h11.ConnectionClosed() | h11.PAUSED:
                break
    return status


async def _receive_or_end(stream: ByteStream) -> bytes:
    """The next bytes; empty at the end, which h11 judges: a body without a length ends that way."""
    try:
        return await stream.receive()
    except anyio.EndOfStream:
        return b""
