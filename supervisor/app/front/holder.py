"""The holding answer: whatever is asked, a 503 that says what is awaited, until somebody serves again.

What it says is in `page`; when it is in the way of requests is the front's business.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import anyio
import h11
from anyio.abc import TaskStatus

from supervisor.app.front import page
from supervisor.app.front.model import FrontError, Holding
from supervisor.app.front.page import Form
from supervisor.process.procfs import describe_port_owner

_CONNECTIONS = 256
_CONNECTION_SECONDS = 5.0
_MAX_HEAD_BYTES = 16 * 1024
_MAX_DROPPED_BYTES = 16 * 1024 * 1024
_READ_BYTES = 4 * 1024
_DROP_BYTES = 64 * 1024
_BACKLOG = 1024
_NO_DESCRIPTOR_SECONDS = 0.1
_TOO_LARGE = 431


class Holder:
    """Answers each request on `listeners` with 503 and what it was last told. For one `run`, or `close` without it.

    The sockets are bound already and become ours: they listen from now on, and requests wait in them until `run`.
    Closing them does not end what a duplicate of them listens for. At most 256 connections are answered at a time,
    more wait in the kernel; each has 5 s.
    """

    def __init__(self, app: str, *, listeners: Sequence[socket.socket]) -> None:
        self._app = app
        self._listeners = list(listeners)
        self._path: tuple[Path, int] | None = None
        self._free = anyio.Semaphore(_CONNECTIONS, max_value=_CONNECTIONS)
        self._answers: dict[Form, tuple[list[tuple[str, str]], bytes]] = {}
        for listener in self._listeners:
            listener.setblocking(False)
            listener.listen(_BACKLOG)
        self.tell(Holding("starting", ""))

    @classmethod
    def on_unix(cls, app: str, path: Path, *, owner: tuple[int, int] | None = None) -> Self:
        """On a 0600 socket at `path` that belongs to `owner` (uid, gid); an old socket there is replaced.

        Raises FrontError where it cannot be had. The path goes when `run` ends, if it still is ours.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder = cls(app, listeners=[_bind_unix(listener, path, owner)])
        except OSError as error:
            listener.close()
            why = error.strerror or str(error)
            raise FrontError(
                f"cannot listen on socket {str(path)!r} for the holding answer: {why}; "
                f"set SUPERVISOR_RUNTIME_DIR to a folder where it can be made"
            ) from error
        holder._path = (path, path.stat().st_ino)
        return holder

    @classmethod
    def on_tcp(cls, app: str, port: int, *, host: str = "0.0.0.0") -> Self:
        """On a TCP port of its own. Raises FrontError where it cannot be had."""
        try:
            return cls(app, listeners=[socket.create_server((host, port))])
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = f"it is taken by {describe_port_owner(port)}" if taken else error.strerror
            raise FrontError(
                f"cannot answer on port {port} while app {app!r} does not: {why}; "
                f"stop what has it, or choose another with PORT"
            ) from error

    def tell(self, holding: Holding) -> None:
        """From the next request on, answer this. Callable before and while it runs."""
        seconds = page.retry_after_seconds(holding)
        for form in Form:
            body = page.render(self._app, holding, form, retry_after_seconds=seconds)
            self._answers[form] = (_headers(form, len(body), seconds), body)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled, which closes listeners and connections at once."""
        try:
            async with anyio.create_task_group() as group:
                for listener in self._listeners:
                    group.start_soon(self._accept, listener)
                task_status.started()
        finally:
            self.close()

    def close(self) -> None:
        """Close the listeners, and remove the unix socket's path. Safe to call more than once."""
        for listener in self._listeners:
            listener.close()
        if self._path is not None:
            path, ours = self._path
            with contextlib.suppress(OSError):
                if path.stat().st_ino == ours:
                    path.unlink()

    async def _accept(self, listener: socket.socket) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await self._free.acquire()
                group.start_soon(self._serve, await _next_connection(listener))

    async def _serve(self, peer: socket.socket) -> None:
        """One connection to its end; what goes wrong on it is its peer's loss only."""
        try:
            with peer, anyio.move_on_after(_CONNECTION_SECONDS), contextlib.suppress(OSError, h11.RemoteProtocolError):
                await self._exchange(peer)
        finally:
            self._free.release()

    async def _exchange(self, peer: socket.socket) -> None:
        """Answer one request and hang up, whatever else it sends: `Connection: close` says so."""
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        try:
            request = await _read_head(connection, peer)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint != _TOO_LARGE:
                raise
            await _send(peer, _refuse(connection))
        else:
            if request is None:
                return
            await _send(peer, self._answer(connection, request))
        await _end(peer)

    def _answer(self, connection: h11.Connection, request: h11.Request) -> bytes:
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        headers, body = self._answers[page.choose_form(accept.decode("latin-1"))]
        response = h11.Response(status_code=503, headers=headers, reason=b"Service Unavailable")
        parts = [connection.send(response)]
        if request.method != b"HEAD":
            parts.append(connection.send(h11.Data(data=body)))
        return b"".join(part for part in parts if part)


def _headers(form: Form, length: int, retry_after_seconds: int) -> list[tuple[str, str]]:
    headers = [
        ("content-type", form.value),
        ("content-length", str(length)),
        ("retry-after", str(retry_after_seconds)),
        ("cache-control", "no-store"),
        ("vary", "accept"),
        ("x-content-type-options", "nosniff"),
        ("connection", "close"),
    ]
    return [*headers, ("content-security-policy", page.CONTENT_SECURITY_POLICY)] if form is Form.HTML else headers


def _refuse(connection: h11.Connection) -> bytes:
    headers = [("content-length", "0"), ("connection", "close")]
    reason = b"Request Header Fields Too Large"
    return connection.send(h11.Response(status_code=_TOO_LARGE, headers=headers, reason=reason)) or b""


def _bind_unix(listener: socket.socket, path: Path, owner: tuple[int, int] | None) -> socket.socket:
    """Bind beside `path` and move it there once it is whole: nobody meets a missing, or somebody else's, socket.

    It can be renamed because a connect looks the path up each time; before `listen` nobody could connect to it.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat(follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "something that is no socket is in its place")
    new = path.with_name(f"{path.name}~")
    new.unlink(missing_ok=True)
    listener.bind(str(new))
    new.chmod(0o600)
    if owner is not None:
        os.chown(new, *owner)
    listener.listen(_BACKLOG)
    new.replace(path)
    return listener


# Plain sockets, not anyio's streams: those of unix sockets, cancelled in the turn in which the peer closes, leave an
# InvalidStateError in the log (seen with 4.16).
async def _next_connection(listener: socket.socket) -> socket.socket:
    """The next one. Where descriptors or memory are short, try again a little later: others may end meanwhile."""
    while True:
        try:
            peer, _ = listener.accept()
        except BlockingIOError:
            await anyio.wait_readable(listener)
        except OSError:
            await anyio.sleep(_NO_DESCRIPTOR_SECONDS)
        else:
            peer.setblocking(False)
            return peer


async def _receive(peer: socket.socket, size: int) -> bytes:
    """What has come, at most `size` bytes; empty once the peer has closed its side. Gives way to others each time."""
    while True:
        await anyio.wait_readable(peer)
        with contextlib.suppress(BlockingIOError):
            return peer.recv(size)


async def _send(peer: socket.socket, data: bytes) -> None:
    """All of it, into the kernel."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[peer.send(rest) :]
        except BlockingIOError:
            await anyio.wait_writable(peer)


async def _read_head(connection: h11.Connection, peer: socket.socket) -> h11.Request | None:
    """The request without its body, None where the peer leaves. RemoteProtocolError has hint 431 past 16 KiB."""
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event if isinstance(event, h11.Request) else None
        connection.receive_data(await _receive(peer, _READ_BYTES))


async def _end(peer: socket.socket) -> None:
    """Say goodbye, then read on until the peer closes, at most 16 MiB.

    Closed with unread bytes, the kernel sends a reset, which can take the answer from a peer that has not read it yet
    (RFC 9112, section 9.6). HAProxy hands that on: with 64 KiB one in five uploads of 1 MB got no answer through it.
    """
    peer.shutdown(socket.SHUT_WR)
    dropped = 0
    while dropped <= _MAX_DROPPED_BYTES and (data := await _receive(peer, _DROP_BYTES)):
        dropped += len(data)
