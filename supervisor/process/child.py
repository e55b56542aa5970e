"""One spawned process: its end, its signals, its orderly stop."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.process import procfs
from supervisor.process.leftovers import Survivor, end_survivors, find_survivors
from supervisor.process.output import Ring

FINAL_SECONDS = 2.0


class KillMode(StrEnum):
    """Whom the stop signal reaches: the whole process group, or the leader alone (KILL goes to all in both)."""

    GROUP = "group"
    PROCESS = "process"


@dataclass(frozen=True)
class Identity:
    """The user a child runs as; numbers, so that no lookup happens between fork and exec."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Command:
    """What to spawn. `argv` must hold no secret; `env` is the whole environment; `pass_fds` keep their numbers.

    `stdout` is where it writes to in place of the ring; the caller's to close.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    identity: Identity | None = None
    umask: int = -1
    stdin: int | None = None
    stdout: int | None = None
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    kill_mode: KillMode = KillMode.GROUP


RunProgram = Callable[[Command], Awaitable[tuple[int, str]]]
"""Runs a command to its end, within a limit; gives its status (as a shell has it, 127 where it cannot start) and the
last lines of its output.

Never raises for what the command does; cancelling it ends the command with all it started.
"""


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code` or `signal`, never both; `at` is monotonic seconds."""

    code: int | None
    signal: int | None
    at: float

    @classmethod
    def from_wait_status(cls, status: int) -> Exit:
        """Decode a wait status; a death by signal stays a signal (`WEXITSTATUS` alone would call it exit 0)."""
        value = os.waitstatus_to_exitcode(status)
        return cls(value if value >= 0 else None, -value if value < 0 else None, time.monotonic())

    @property
    def status(self) -> int:
        """The shell's number for it: the code, or 128 + signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    @property
    def signal_name(self) -> str | None:
        """`SIGKILL`, or None for an exit by itself."""
        if self.signal is None:
            return None
        with contextlib.suppress(ValueError):
            return signal.Signals(self.signal).name
        return f"signal {self.signal}"

    @property
    def clean(self) -> bool:
        """Whether it exited 0."""
        return self.code == 0

    def __str__(self) -> str:
        return f"killed by {self.signal_name}" if self.signal is not None else f"exited with {self.code}"


@dataclass(eq=False)
class Child:
    """A process we spawned. Made by `Reaper.spawn` only, which also calls `_ended`.

    The `Popen` object is kept for as long as this is: were it dropped, its destructor would wait for the process
    itself and take the status from the reaper.
    """

    command: Command
    pid: int
    marker: str
    start_ticks: int
    ring: Ring
    _popen: subprocess.Popen[bytes]
    _pidfd: int  # -1 where none could be opened
    _drain: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    exit: Exit | None = None
    survivors: list[Survivor] = field(default_factory=list)
    _done: anyio.Event = field(default_factory=anyio.Event)
    _ended_ticks: int = 0
    _group_told: bool = False

    @property
    def identity(self) -> str:
        """Unique for this process over all pid reuse: pid and start time."""
        return f"{self.pid}.{self.start_ticks}"

    @property
    def alive(self) -> bool:
        """Whether it has not been reaped yet."""
        return self.exit is None

    async def wait(self) -> Exit:
        """Wait for its end; any number of callers may, cancelling one has no effect.

        All it wrote before its end is in the ring by then. What it left running is in `survivors`: `stop` or `kill`
        ends that too.
        """
        await self._done.wait()
        assert self.exit is not None
        return self.exit

    def signal(self, number: int) -> bool:
        """Signal the process itself; False when it is gone or not ours to signal (it became another user).

        By pidfd so that a recycled pid is never hit; without one by pid, its own for as long as it is unreaped.
        """
        if self._pidfd >= 0:
            return _send(signal.pidfd_send_signal, self._pidfd, number)
        return self.alive and _send(os.kill, self.pid, number)

    def signal_group(self, number: int) -> bool:
        """Signal its whole process group; only while the leader is unreaped, as the number is ours only until then."""
        return self.alive and _send(os.killpg, self.pid, number)

    async def stop(self, *, grace_seconds: float) -> Exit:
        """Stop signal, wait up to `grace_seconds` for it and all it started, then KILL; returns once the tree is empty.

        The grace is an upper bound. Cancelling kills at once: clean-up is shielded, 2 s at most. Raises SupervisorError
        when even KILL does not end it.
        """
        deadline = anyio.current_time() + grace_seconds
        try:
            self._send_stop()
            with anyio.move_on_at(deadline):
                await self._done.wait()
                await self._end_survivors(self.command.stop_signal)
        finally:
            with anyio.CancelScope(shield=True):
                await self.kill()
        if self.exit is None:
            raise SupervisorError(
                f"cannot end {self.command.name!r} (pid {self.pid}): not even KILL ended it within "
                f"{FINAL_SECONDS:g} s; look for a hung disk or mount (state D in ps), or a process of another user"
            )
        return self.exit

    def _send_stop(self) -> None:
        if self.command.kill_mode is KillMode.GROUP:
            self._group_told = self.signal_group(self.command.stop_signal)
            send = self.signal_group
        else:
            self.signal(self.command.stop_signal)
            send = self.signal
        # A stopped (SIGSTOP) process cannot act on its stop signal.
        send(signal.SIGCONT)

    async def _end_survivors(self, number: int) -> None:
        """Signal what outlived the leader, then what that spawned meanwhile, until nothing is left."""
        spare = self.pid if self._group_told and number != signal.SIGKILL else 0
        while self.survivors:
            await end_survivors(self.survivors, number, spare_group=spare)
            self.survivors = self._find_survivors()

    def _find_survivors(self) -> list[Survivor]:
        # Out of descriptors or no /proc: nothing can be seen. That must not keep anybody waiting for the exit.
        with contextlib.suppress(OSError):
            return find_survivors(self.marker, self.pid, self._ended_ticks)
        return []

    async def kill(self) -> None:
        """KILL whatever is left of it; waits 2 s at most, shielded by callers that need it."""
        self.signal_group(signal.SIGKILL)
        with anyio.move_on_after(FINAL_SECONDS):
            await self._done.wait()
            await self._end_survivors(signal.SIGKILL)

    def _ended(self, status: int) -> None:
        """Called by the reaper, in the step that reaped it."""
        self.exit = Exit.from_wait_status(status)
        self._popen.returncode = self.exit.code if self.exit.code is not None else -(self.exit.signal or 0)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self._ended_ticks = procfs.uptime_ticks()
        self.survivors = self._find_survivors()
        try:
            self._drain()
        finally:
            self._done.set()


def _send(call: Callable[[int, int], None], target: int, number: int) -> bool:
    try:
        call(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def explain_spawn_error(command: Command, error: OSError) -> str:
    """`cannot start <name>: <why>` for a failed exec, with what to do."""
    program = command.argv[0]
    if command.cwd is not None and not os.path.isdir(command.cwd):
        return f"cannot start {command.name!r}: its folder {command.cwd!r} does not exist"
    match error.errno:
        case errno.ENOENT:
            why = f"no program {program!r} on the PATH; check the command's first word"
        case errno.EACCES:
            uid = command.identity.uid if command.identity is not None else os.getuid()
            why = f"{program!r} is not executable by uid {uid}; check its mode and the folders above it"
        case errno.ENOEXEC:
            why = f"{program!r} has no #! line and is no binary for this machine"
        case errno.EAGAIN:
            why = "the limit of processes is reached (ulimit -u, or the container's pids limit)"
        case errno.EPERM:
            why = f"not allowed to become another user for {program!r}; run as root or drop the user setting"
        case _:
            why = os.strerror(error.errno or 0)
    return f"cannot start {command.name!r}: {why}"
