"""The reaper: the only caller of wait, and the only place that forks.

Fork and registration happen in one synchronous step, so an exit can never be seen before its process is known.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import uuid
from collections.abc import Callable
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.process import procfs
from supervisor.process.child import Child, Command
from supervisor.process.leftovers import MARKER_VARIABLE, SpawnRecord
from supervisor.process.output import Ring, pump

SLOW_TICK_SECONDS = 5.0
_RESERVED_DESCRIPTORS = 64


class SpawnLog(Protocol):
    """Where spawns are written down (see `SpawnRecord`); both calls are synchronous and must be quick."""

    def spawned(self, record: SpawnRecord) -> None:
        """A process was started."""

    def reaped(self, pid: int) -> None:
        """It is gone."""


class NoSpawnLog:
    """Writes nothing down."""

    def spawned(self, record: SpawnRecord) -> None:
        """Ignored."""

    def reaped(self, pid: int) -> None:
        """Ignored."""


class Reaper:
    """Spawns children and reaps everything: ours by name, adopted orphans by count.

    `run` must be running before the first `spawn`. `entry_mask` and `entry_ignored` are the blocked and the ignored
    signals this process was started with; children get them back.
    """

    def __init__(
        self,
        *,
        install_id: str = "",
        entry_mask: frozenset[int] = frozenset(),
        entry_ignored: frozenset[int] = frozenset(),
        spawn_log: SpawnLog | None = None,
        on_orphan: Callable[[int], None] | None = None,
    ) -> None:
        self._install_id = install_id or uuid.uuid4().hex
        self._entry_mask = entry_mask
        self._entry_ignored = entry_ignored
        self._log: SpawnLog = spawn_log or NoSpawnLog()
        self._on_orphan = on_orphan
        self._children: dict[int, Child] = {}
        self._pumps: TaskGroup | None = None
        self._empty: anyio.Event | None = None
        self.orphans_reaped = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Reap until cancelled. Signals merge, so each wake-up drains, and a slow tick covers a lost one."""
        async with anyio.create_task_group() as group:
            self._pumps = group
            with anyio.open_signal_receiver(signal.SIGCHLD) as received:
                group.start_soon(self._tick)
                self.reap()
                task_status.started()
                async for _ in received:
                    self.reap()

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(SLOW_TICK_SECONDS)
            self.reap()

    def reap(self) -> None:
        """Collect every ended process now."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is None:
                self.orphans_reaped += 1
                if self._on_orphan is not None:
                    self._on_orphan(pid)
                continue
            self._log.reaped(pid)
            child._ended(status)
            if not self._children and self._empty is not None:
                self._empty.set()

    @property
    def children(self) -> list[Child]:
        """The children not reaped yet."""
        return list(self._children.values())

    def spawn(self, command: Command, ring: Ring) -> Child:
        """Start `command` in a session of its own, its output pumped into `ring`.

        Raises OSError when it cannot be executed (`explain_spawn_error` has the words). Does not block but for the
        exec itself. The child ends only by itself or by `stop`/`kill`: cancelling the caller leaves it running.
        """
        assert self._pumps is not None, "the reaper must run before anything is spawned"
        marker = f"{self._install_id}/{command.name}/{uuid.uuid4().hex[:12]}"
        out_read, out_write = _pipe()
        err_read, err_write = _pipe()
        try:
            child = self._fork(command, ring, marker, out_write, err_write)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        self._pumps.start_soon(pump, out_read, ring, "stdout", name=f"{command.name} stdout")
        self._pumps.start_soon(pump, err_read, ring, "stderr", name=f"{command.name} stderr")
        return child

    def _fork(self, command: Command, ring: Ring, marker: str, out_write: int, err_write: int) -> Child:
        identity = command.identity
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, self._entry_mask)
        try:
            popen = subprocess.Popen(
                self._with_entry_ignored(list(command.argv)),
                env={**command.env, MARKER_VARIABLE: marker},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL if command.stdin is None else command.stdin,
                stdout=out_write,
                stderr=err_write,
                start_new_session=True,
                pass_fds=command.pass_fds,
                umask=command.umask,
                user=None if identity is None else identity.uid,
                group=None if identity is None else identity.gid,
                extra_groups=None if identity is None else list(identity.groups),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        # It may be gone already, but as nothing else waits it is at least a zombie: pidfd and stat still work.
        stat = procfs.read_stat(popen.pid)
        child = Child(
            command=command,
            pid=popen.pid,
            marker=marker,
            start_ticks=stat.start_ticks if stat else 0,
            ring=ring,
            _popen=popen,
            _pidfd=os.pidfd_open(popen.pid),
        )
        self._children[popen.pid] = child
        record = SpawnRecord(
            command.name, child.pid, child.start_ticks, procfs.boot_id(), marker, int(command.stop_signal)
        )
        self._log.spawned(record)
        return child

    def _with_entry_ignored(self, argv: list[str]) -> list[str]:
        """Wrap `argv` so that signals ignored when we were started are ignored in it again.

        Ours have handlers by now, which exec resets to the default; only a process in between can ignore them
        (`nohup` users meet this, hardly anybody else).
        """
        if not self._entry_ignored:
            return argv
        names = " ".join(signal.Signals(number).name.removeprefix("SIG") for number in sorted(self._entry_ignored))
        return ["/bin/sh", "-c", f'trap "" {names}; exec "$@"', argv[0], *argv]

    async def wait_empty(self) -> None:
        """Return when no child of ours is left."""
        while self._children:
            self._empty = anyio.Event()
            await self._empty.wait()

    async def end_all(self) -> None:
        """KILL every child and, as PID 1 or subreaper, every process below us; 2 s at most. For the way out."""
        for child in self.children:
            child.signal_group(signal.SIGKILL)
        with anyio.move_on_after(2.0):
            await self.wait_empty()
        for pid in adopted():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.reap()


def adopted() -> list[int]:
    """Our direct children as the kernel lists them: after ours are gone, these are orphans we adopted."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as listing:
                found.extend(int(pid) for pid in listing.read().split())
    return found


def _pipe() -> tuple[int, int]:
    """A pipe whose read end does not block; the child's end does, as programs expect."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    return read_end, write_end


def descriptors_left() -> int:
    """How many more file descriptors may be opened, roughly; for the preflight."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - len(os.listdir("/proc/self/fd")) - _RESERVED_DESCRIPTORS
