"""One spawned process: its end, its signals, its orderly stop."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import anyio

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
    """What to spawn. `argv` must hold no secret; `env` is the whole environment; `pass_fds` keep their numbers."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str | None = None
    identity: Identity | None = None
    umask: int = -1
    stdin: int | None = None
    pass_fds: tuple[int, ...] = ()
    stop_signal: signal.Signals = signal.SIGTERM
    kill_mode: KillMode = KillMode.GROUP


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
    _pidfd: int
    started: float = field(default_factory=time.monotonic)
    exit: Exit | None = None
    survivors: list[Survivor] = field(default_factory=list)
    _done: anyio.Event = field(default_factory=anyio.Event)

    @property
    def identity(self) -> str:
        """Unique for this process over all pid reuse: pid and start time."""
        return f"{self.pid}.{self.start_ticks}"

    @property
    def alive(self) -> bool:
        """Whether it has not been reaped yet."""
        return self.exit is None

    async def wait(self) -> Exit:
        """Wait for its end; any number of callers may, cancelling one has no effect."""
        await self._done.wait()
        assert self.exit is not None
        return self.exit

    def signal(self, number: int) -> bool:
        """Signal the process itself, by pidfd so that a recycled pid is never hit; False when it is gone."""
        if self._pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            return False
        return True

    def signal_group(self, number: int) -> bool:
        """Signal its whole process group; only while the leader is unreaped, as the number is ours only until then."""
        if not self.alive:
            return False
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            # One member changed its user; the others were signalled all the same (kill(2)).
            return True
        return True

    async def stop(self, *, grace_seconds: float) -> Exit:
        """Stop signal, wait up to `grace_seconds` for it and all it started, then KILL; returns once the tree is empty.

        The grace is an upper bound. Cancelling kills at once: clean-up is shielded, 2 s at most.
        """
        deadline = anyio.current_time() + grace_seconds
        try:
            send = self.signal_group if self.command.kill_mode is KillMode.GROUP else self.signal
            send(self.command.stop_signal)
            # A stopped (SIGSTOP) process cannot act on its stop signal.
            send(signal.SIGCONT)
            with anyio.move_on_at(deadline):
                await self._done.wait()
                await end_survivors(self.survivors, self.command.stop_signal)
        finally:
            with anyio.CancelScope(shield=True):
                await self.kill()
        assert self.exit is not None, f"{self.command.name} (pid {self.pid}) cannot be ended"
        return self.exit

    async def kill(self) -> None:
        """KILL whatever is left of it; waits 2 s at most, shielded by callers that need it."""
        if self.alive:
            self.signal_group(signal.SIGKILL)
            self.signal(signal.SIGKILL)
        with anyio.move_on_after(FINAL_SECONDS):
            await self._done.wait()
            await end_survivors(self.survivors, signal.SIGKILL)

    def _ended(self, status: int) -> None:
        """Called by the reaper, in the step that reaped it."""
        self.exit = Exit.from_wait_status(status)
        self._popen.returncode = self.exit.code if self.exit.code is not None else -(self.exit.signal or 0)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        self.survivors = find_survivors(self.marker, self.pid)
        self._done.set()


def explain_spawn_error(command: Command, error: OSError) -> str:
    """`cannot start <name>: <why>` for a failed exec, with what to do."""
    program = command.argv[0]
    if command.cwd is not None and not os.path.isdir(command.cwd):
        return f"cannot start {command.name!r}: its folder {command.cwd!r} does not exist"
    match error.errno:
        case errno.ENOENT:
            why = f"no program {program!r} on the PATH; check the command's first word"
        case errno.EACCES:
            why = f"{program!r} is not executable by uid {os.getuid()}; check its mode and folder"
        case errno.ENOEXEC:
            why = f"{program!r} has no #! line and is no binary for this machine"
        case errno.EAGAIN:
            why = "the limit of processes is reached (ulimit -u, or the container's pids limit)"
        case errno.EPERM:
            why = f"not allowed to become another user for {program!r}; run as root or drop the user setting"
        case _:
            why = os.strerror(error.errno or 0)
    return f"cannot start {command.name!r}: {why}"
