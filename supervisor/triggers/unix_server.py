"""A 0600 unix socket and uvicorn on it, without uvicorn's hold on the process; nothing here knows a route."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import uvicorn
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from supervisor.core.control_path import MAX_SOCKET_BYTES
from supervisor.core.errors import ConfigurationError

MAX_CONNECTIONS = 128
MAX_BODY_BYTES = 64 * 1024
_MAX_HEAD_BYTES = 16 * 1024
_BODY_SECONDS = 5.0
_LAST_WORDS_SECONDS = 0.15
_ABORT_SECONDS = 0.1


@contextlib.contextmanager
def listen(path: Path) -> Iterator[socket.socket]:
    """A listening 0600 socket at `path`, which is removed at the end if it is still ours.

    A socket nobody answers on is replaced. Raises ConfigurationError, with the mend, where `path` cannot be had.
    """
    _make_way(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        # The mode must be right from the first moment on, so it is the umask that sets it; nothing runs in between.
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        except OSError as error:
            raise _cannot_listen(path, error.strerror or str(error)) from error
        finally:
            os.umask(before)
        ours = path.stat().st_ino
        try:
            listener.listen(64)
            listener.setblocking(False)
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == ours:
                    path.unlink()


def _make_way(path: Path) -> None:
    """Remove a socket nobody listens on; raise for anything else that is in the way."""
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_BYTES:
        raise _cannot_listen(
            path,
            f"its path has {length} bytes and the kernel takes {MAX_SOCKET_BYTES}",
            "set SUPERVISOR_SOCKET or SUPERVISOR_RUNTIME_DIR to a shorter path",
        )
    try:
        mode = path.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_listen(path, error.strerror or str(error)) from error
    if not stat.S_ISSOCK(mode):
        raise _cannot_listen(path, "something that is no socket is in its place", "move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise _cannot_listen(path, error.strerror or str(error)) from error
    raise _cannot_listen(path, "another supervisor answers on it", "stop that one, or set SUPERVISOR_SOCKET")


def _cannot_listen(path: Path, why: str, mend: str = "set SUPERVISOR_SOCKET to another path") -> ConfigurationError:
    return ConfigurationError(f"cannot listen on control socket {str(path)!r}: {why}; {mend}")


class Server(uvicorn.Server):
    """uvicorn without signal handlers and tick; `serve(sockets=[...])` ends by cancelling, then `end` must be awaited.

    `allowed_uids` are the only ones that may connect; their uid is asked of the kernel for each connection.
    """

    def __init__(
        self,
        application: ASGIApp,
        *,
        allowed_uids: frozenset[int],
        on_accepting: Callable[[], None],
        takes_body: Callable[[Scope], bool] = lambda scope: False,
    ) -> None:
        config = uvicorn.Config(
            BoundedBody(application, takes_body),
            http=_protocol(allowed_uids),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
        )
        super().__init__(config)
        self._on_accepting = on_accepting
        self.servers: list[asyncio.base_events.Server] = []

    def capture_signals(self) -> contextlib.nullcontext[None]:  # type: ignore[override]
        """The original takes TERM and INT over and raises them again at the end; ours have their own handlers."""
        return contextlib.nullcontext()

    async def main_loop(self) -> None:
        """The original wakes ten times a second for a date header and a request limit; we have neither."""
        self._on_accepting()
        await anyio.sleep_forever()

    async def end(self) -> None:
        """Accept no more, let answers that are due go out, then cut whoever is left. Takes 0.25 s at most."""
        for server in self.servers:
            server.close()
        await self._requests_done(_LAST_WORDS_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await self._requests_done(_ABORT_SECONDS)

    async def _requests_done(self, limit_seconds: float) -> None:
        if tasks := set(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=limit_seconds)


def _protocol(allowed_uids: frozenset[int]) -> type[H11Protocol]:
    class Protocol(H11Protocol):
        """Hangs up on strangers, and on more than MAX_CONNECTIONS."""

        refused = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            pid, uid = _peer(transport.get_extra_info("socket"))
            if uid not in allowed_uids or len(self.connections) >= MAX_CONNECTIONS:
                self.refused = True
                transport.abort()
                return
            super().connection_made(transport)
            # A unix peer has no host and port; what ASGI calls so tells the routes who asks.
            self.client = (f"uid {uid}", pid)

        def connection_lost(self, exc: Exception | None) -> None:
            if not self.refused:
                super().connection_lost(exc)

    return Protocol


def _peer(connection: socket.socket) -> tuple[int, int]:
    """(pid, uid) of the process at the other end when it connected; see SO_PEERCRED in unix(7)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    return pid, uid


class BoundedBody:
    """Reads and forgets the request's body, and refuses one that is large or never ends. Routes of what `takes_body`
    read and bound it themselves.
    """

    def __init__(self, application: ASGIApp, takes_body: Callable[[Scope], bool]) -> None:
        self._application = application
        self._takes_body = takes_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        refusal: Response | None = None
        has_body = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"
        if has_body and not self._takes_body(scope):
            refusal = await self._read(receive)
        await (refusal or self._application)(scope, receive, send)

    async def _read(self, receive: Receive) -> Response | None:
        size = 0
        with anyio.move_on_after(_BODY_SECONDS):
            while True:
                message = await receive()
                size += len(message.get("body", b""))
                if size > MAX_BODY_BYTES:
                    return _refusal(413, f"cannot read the body: it has more than {MAX_BODY_BYTES} bytes; send none")
                if not message.get("more_body", False):
                    return None
        return _refusal(408, f"cannot read the body: it did not end within {_BODY_SECONDS} s; send none")


def _refusal(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status, headers={"connection": "close"})
