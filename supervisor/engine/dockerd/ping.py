"""One GET from the daemon over its unix socket, and the proof that it is ours. No Docker library in the probe."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

import anyio
import h11
from anyio.abc import SocketAttribute, UNIXSocketStream

from supervisor.engine.dockerd.config import label_of
from supervisor.probe.verdict import Verdict, good, waiting

LIMIT_SECONDS = 2.0
MAX_BODY_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """`status` is None where no HTTP answer came; `connected` tells a starting daemon from none.

    `peer_pid` is 0 for a listener outside our PID namespace.
    """

    status: int | None
    body: bytes = b""
    detail: str = ""
    connected: bool = False
    peer_pid: int = 0


async def get(path: Path, target: str, *, limit_seconds: float = LIMIT_SECONDS) -> Answer:
    """One GET; never raises for anything the other side does."""
    stream: UNIXSocketStream | None = None
    try:
        with anyio.fail_after(limit_seconds):
            stream = await anyio.connect_unix(str(path))
            peer_pid = _peer_pid(stream)
            status, body = await _exchange(stream, target)
            return Answer(status, body, connected=True, peer_pid=peer_pid)
    except TimeoutError:
        return Answer(None, detail=f"no answer within {limit_seconds:g} s", connected=stream is not None)
    except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
        why = getattr(error, "strerror", None) or "it closed the connection"
        return Answer(None, detail=str(why), connected=stream is not None)
    except h11.RemoteProtocolError as error:
        return Answer(None, detail=f"it does not speak HTTP: {error}", connected=True)
    finally:
        if stream is not None:
            await anyio.aclose_forcefully(stream)


def _peer_pid(stream: UNIXSocketStream) -> int:
    connected: socket.socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610, no Django here
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("iII", raw)[0])


async def _exchange(stream: UNIXSocketStream, target: str) -> tuple[int, bytes]:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=64 * 1024)
    request = h11.Request(method="GET", target=target, headers=[("Host", "docker"), ("Connection", "close")])
    await stream.send((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    status, body = 0, bytearray()
    while len(body) < MAX_BODY_BYTES:
        match connection.next_event():
            case h11.NEED_DATA:
                connection.receive_data(await _receive_or_end(stream))
            case h11.Response(status_code=code):
                status = code
            case h11.Data(data=data):
                body += data
            case h11.EndOfMessage() | h11.ConnectionClosed() | h11.PAUSED:
                break
    return status, bytes(body)


async def _receive_or_end(stream: UNIXSocketStream) -> bytes:
    try:
        return await stream.receive()
    except anyio.EndOfStream:
        return b""


async def probe_daemon(
    path: Path, *, install_uuid: str, progress: bool, limit_seconds: float = LIMIT_SECONDS
) -> Verdict:
    """Ping and `/info`, each within its limit; good only where the daemon carries our label.

    dockerd opens its socket before it loads its containers and answers when it is fully up, so connected but silent
    means starting. `progress` (its log says that it goes on) extends the deadline.
    """
    ping = await get(path, "/_ping", limit_seconds=limit_seconds)
    if ping.status != 200:
        return waiting(explain_ping(ping), recovering=progress)
    info = await get(path, "/info", limit_seconds=limit_seconds)
    if info.status != 200:
        return waiting(f"/info: {info.detail or f'answered {info.status}'}", recovering=progress)
    if label_of(install_uuid) not in labels(info.body):
        return waiting(f"the daemon on {str(path)!r} (pid {ping.peer_pid}) is not the one we started")
    return good("ping and info answer, the label is ours", peer_pid=ping.peer_pid)


def explain_ping(answer: Answer) -> str:
    """One line for people."""
    if answer.status is not None:
        return f"ping answered {answer.status}"
    if answer.connected:
        return f"it accepts connections but does not answer (starting, or hung): {answer.detail}"
    return f"it does not listen yet: {answer.detail}"


def labels(body: bytes) -> list[str]:
    """The daemon's labels from `/info`; empty for what is no such answer."""
    try:
        found = json.loads(body).get("Labels")
    except (ValueError, AttributeError):
        return []
    return [str(label) for label in found] if isinstance(found, list) else []
