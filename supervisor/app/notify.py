"""What a generation says of itself: sd_notify(3) on a socket of its own, or a newline on a pipe (s6's way).

A generation has its own, so that nobody else can speak for it. Whether readiness is asked for is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from pathlib import Path
from typing import Protocol

import anyio
from anyio.abc import TaskStatus

from supervisor.app.sd_notify import MAX_DATAGRAM_BYTES, Said, listen_to
from supervisor.core.control_path import MAX_SOCKET_BYTES
from supervisor.core.errors import ConfigurationError

_DATAGRAMS_A_TURN = 32


class Readiness(Protocol):
    """A way in which a generation says that it is ready.

    `run` first; then spawn with `environ` and `pass_fds`; then `spawned`. `detail` says in words what was said so far.
    """

    @property
    def environ(self) -> tuple[tuple[str, str], ...]:
        """What the child's environment needs."""

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors the child needs."""

    @property
    def ready(self) -> bool:
        """Whether it is ready now."""

    @property
    def detail(self) -> str:
        """For an error text: what it said last."""

    @property
    def extended_until(self) -> float:
        """Until when, in monotonic seconds, it asked to be given time; 0 where it did not."""

    def spawned(self) -> None:
        """The child has what is its own, or there will be none."""

    async def wait_ready(self) -> None:
        """Return once it is ready; never, if it never is. Any number may wait."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled, or until nobody can speak any more; leaves nothing open."""


class NotifySocket:
    """The socket in NOTIFY_SOCKET, made at `path` with mode 0600 for `owner` (uid, gid; None: us)."""

    def __init__(self, path: Path, owner: tuple[int, int] | None = None) -> None:
        self._path = path
        self._owner = owner
        self._changed = anyio.Event()
        self.said = Said()

    @property
    def environ(self) -> tuple[tuple[str, str], ...]:
        """Where to say it."""
        return (("NOTIFY_SOCKET", str(self._path)),)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """None: it is a path."""
        return ()

    @property
    def ready(self) -> bool:
        """READY=1, and nothing since that takes it back."""
        return self.said.ready

    @property
    def status(self) -> str:
        """Its last STATUS=, one line of 200 characters at most."""
        return self.said.status

    @property
    def extended_until(self) -> float:
        """Monotonic seconds; 0 where it never asked for time. One datagram gives an hour at most."""
        return self.said.extended_until

    @property
    def watchdog_at(self) -> float | None:
        """When it said last that it lives, in monotonic seconds."""
        return self.said.watchdog_at

    @property
    def detail(self) -> str:
        """What it said."""
        if self.said.stopping:
            state = "it says that it is stopping"
        elif self.said.reloading_since is not None:
            state = "it says that it is reloading"
        else:
            state = "it sent READY=1" if self.said.said_ready else "it has not sent READY=1"
        return f"{state} (status: {self.status})" if self.status else state

    def spawned(self) -> None:
        """Nothing to let go of."""

    async def wait_ready(self) -> None:
        """Return once it is ready."""
        while not self.ready:
            await self.wait_changed()

    async def wait_changed(self) -> None:
        """Return as soon as it says something new."""
        await self._changed.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; then the socket is closed and its file removed.

        Raises ConfigurationError where the socket cannot be had. Descriptors sent along (FDSTORE, BARRIER) are closed
        by the kernel as nobody takes them, which is the answer that sd_notify_barrier(3) waits for.
        """
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ours:
            try:
                self._bind(ours)
                task_status.started()
                while True:
                    await anyio.wait_readable(ours)
                    self._take(ours)
            finally:
                self._path.unlink(missing_ok=True)

    def _bind(self, ours: socket.socket) -> None:
        length = len(os.fsencode(self._path))
        if length > MAX_SOCKET_BYTES:
            raise self._cannot_listen(f"its path has {length} bytes and the kernel takes {MAX_SOCKET_BYTES}")
        try:
            self._path.unlink(missing_ok=True)
            # A socket's mode before bind is that of its file, less the umask: so it is right from the first moment on.
            os.fchmod(ours.fileno(), 0o600)
            ours.bind(str(self._path))
            if self._owner is not None:
                os.chown(self._path, *self._owner, follow_symlinks=False)
        except OSError as error:
            raise self._cannot_listen(error.strerror or str(error)) from error

    def _cannot_listen(self, why: str) -> ConfigurationError:
        mend = "set SUPERVISOR_RUNTIME_DIR to another, short path"
        return ConfigurationError(f"cannot listen on notify socket {str(self._path)!r}: {why}; {mend}")

    def _take(self, ours: socket.socket) -> None:
        """A turn's worth: one who floods us must not keep the loop."""
        before = self.said
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DATAGRAMS_A_TURN):
                self.said = listen_to(self.said, ours.recv(MAX_DATAGRAM_BYTES + 1), time.monotonic())
        if self.said != before:
            self._changed.set()
            self._changed = anyio.Event()


class ReadyFd:
    """A pipe whose write end is in SUPERVISOR_READY_FD: a newline means ready (https://skarnet.org/software/s6/notifywhenup.html).

    What follows the newline is read and forgotten, so that a chatty child is not killed by SIGPIPE.
    """

    extended_until = 0.0

    def __init__(self) -> None:
        self._write_end = -1
        self._ready = anyio.Event()
        self._over = False

    @property
    def environ(self) -> tuple[tuple[str, str], ...]:
        """The number of the write end."""
        return (("SUPERVISOR_READY_FD", str(self._write_end)),)

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The write end."""
        return (self._write_end,)

    @property
    def ready(self) -> bool:
        """Whether the newline came."""
        return self._ready.is_set()

    @property
    def detail(self) -> str:
        """What it said."""
        if self.ready:
            return "it wrote a newline to SUPERVISOR_READY_FD"
        how = (
            "closed SUPERVISOR_READY_FD without a newline" if self._over else "wrote no newline to SUPERVISOR_READY_FD"
        )
        return f"it {how}"

    def spawned(self) -> None:
        """Close our copy of the write end, else its end is never seen. Idempotent."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    async def wait_ready(self) -> None:
        """Return once the newline came."""
        await self._ready.wait()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Read until everybody has closed it, or until cancelled; both ends are closed then."""
        read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        try:
            task_status.started()
            while not self._over:
                await anyio.wait_readable(read_end)
                self._take(os.read(read_end, MAX_DATAGRAM_BYTES))
        finally:
            os.close(read_end)
            self.spawned()

    def _take(self, data: bytes) -> None:
        self._over = not data
        if b"\n" in data:
            self._ready.set()
