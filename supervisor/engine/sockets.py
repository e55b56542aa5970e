"""What is at a socket's path, and who listens there (F3 to F7). Reads only; a connect and a ping are all it does."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence

from supervisor.engine.dockerd.mounts import Mount, mount_of
from supervisor.engine.facts import (
    Connected,
    Connection,
    EngineAddress,
    PathKind,
    Peer,
    Ping,
    Pinged,
    Process,
    Scheme,
    SocketPath,
)
from supervisor.engine.transport import LIMIT_SECONDS, Answer, ConnectError, NoAnswerError, connect, exchange

_UCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid
_MANY_ENTRIES = 1000

FindProcess = Callable[[int], Process | None]
FindListener = Callable[[str, int], Process | None]


def look(path: str, table: Sequence[Mount]) -> SocketPath:
    """What is at `path`, links followed. Never raises."""
    real = os.path.realpath(path)
    mount = mount_of(real, table)
    point = mount.point if mount is not None and mount.point != "/" else ""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        kind = PathKind.DANGLING_LINK if os.path.islink(path) else PathKind.ABSENT
        return SocketPath(path, kind, real_path=real, mount=point)
    except PermissionError:
        return SocketPath(path, PathKind.UNSEARCHABLE, real_path=real, blocked_at=_blocked_at(path))
    except OSError:
        # A loop of links, or a parent that is no folder.
        kind = PathKind.DANGLING_LINK if os.path.islink(path) else PathKind.OTHER
        return SocketPath(path, kind, real_path=real, mount=point)
    return SocketPath(
        path,
        _kind(found.st_mode),
        real_path=real,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size,
        entries=_entries(path) if stat.S_ISDIR(found.st_mode) else 0,
        mount=point,
    )


def _kind(mode: int) -> PathKind:
    if stat.S_ISSOCK(mode):
        return PathKind.SOCKET
    if stat.S_ISDIR(mode):
        return PathKind.DIRECTORY
    return PathKind.FILE if stat.S_ISREG(mode) else PathKind.OTHER


def _entries(folder: str) -> int:
    """How many, up to a bound; a folder we may not list is not known to be empty."""
    try:
        with os.scandir(folder) as listing:
            return sum(1 for _, _ in zip(listing, range(_MANY_ENTRIES), strict=False))
    except OSError:
        return _MANY_ENTRIES


def _blocked_at(path: str) -> str:
    """The first folder on the way that may not be searched; links make it an approximation."""
    parts = os.path.realpath(path).split("/")[1:-1]
    folder = ""
    for part in parts:
        folder = f"{folder}/{part}"
        if not os.access(folder, os.X_OK, effective_ids=True):
            return folder
    return os.path.dirname(path)


def call(
    endpoint: EngineAddress, *, process: FindProcess, listener: FindListener, limit_seconds: float = LIMIT_SECONDS
) -> tuple[Connection, Ping]:
    """Connect and ping. `listener` finds who listens on a TCP port of this machine. Never raises; blocks for at
    most twice the limit, a name lookup apart."""
    addresses = _addresses(endpoint)
    if endpoint.tls is not None and endpoint.tls.missing:
        missing = ", ".join(endpoint.tls.missing)
        return Connection(Connected.TLS, f"cannot read {missing} in {endpoint.tls.folder}", None, addresses), Ping()
    try:
        connection = connect(endpoint, limit_seconds=limit_seconds)
    except ConnectError as error:
        return Connection(error.result, str(error), None, addresses), Ping()
    with contextlib.closing(connection):
        if endpoint.scheme is Scheme.UNIX:
            peer: Peer | None = unix_peer(connection, process)
        else:
            peer = _tcp_peer(connection, listener)
        return Connection(Connected.OK, "", peer, addresses), ping(connection, limit_seconds=limit_seconds)


def _addresses(endpoint: EngineAddress) -> tuple[str, ...]:
    """What the name resolves to, for the error text."""
    if endpoint.scheme is Scheme.UNIX:
        return ()
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[4][0]) for address in found))


def unix_peer(connection: socket.socket, process: FindProcess) -> Peer:
    """SO_PEERCRED, unix(7): who called listen(), with its pid as our PID namespace has it, or 0."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _ = _UCRED.unpack(raw)
    return Peer(pid, uid, process(pid) if pid > 0 else None)


def _tcp_peer(connection: socket.socket, listener: FindListener) -> Peer | None:
    """Only where both ends have one address is the listener on this machine and to be found in /proc."""
    try:
        there, here = connection.getpeername()[:2], connection.getsockname()[:2]
    except OSError:
        return None
    if there[0] != here[0]:
        return None
    found = listener(there[0], there[1])
    return Peer(found.pid, 0, found) if found is not None else None


def ping(connection: socket.socket, *, limit_seconds: float = LIMIT_SECONDS) -> Ping:
    """`GET /_ping`. Connected but silent is an engine that starts: it listens before it loads its containers."""
    try:
        answer = exchange(connection, "/_ping", limit_seconds=limit_seconds)
    except NoAnswerError as error:
        match error.__cause__:
            case TimeoutError():
                return Ping(Pinged.TIMEOUT, detail=str(error))
            case ValueError():
                return Ping(Pinged.GARBAGE, detail=str(error))
            case _:
                return Ping(Pinged.CLOSED, detail=str(error))
    return _judge(answer)


def _judge(answer: Answer) -> Ping:
    version = answer.headers.get("api-version", "")
    if answer.status == 200 and (version or answer.body.strip() == b"OK"):
        return Ping(Pinged.OK, 200, version, answer.headers.get("swarm", ""))
    body = answer.body[:200].decode(errors="replace").strip()
    if answer.status == 200:
        return Ping(Pinged.GARBAGE, 200, detail=f"it answered {body[:40]!r}")
    return Ping(Pinged.HTTP_ERROR, answer.status, version, detail=body)
