"""The reaper: the only caller of wait, and the only place that forks.

Fork and registration happen in one synchronous step, so an exit can never be seen before its process is known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.process import procfs
from supervisor.process.child import Child, Command, KillMode
from supervisor.process.leftovers import MARKER_VARIABLE, SpawnRecord, Survivor
from supervisor.process.output import Ring
from supervisor.process.pump import Pump

SLOW_TICK_SECONDS = 10.0
LINGER_SECONDS = 10.0
FINAL_SECONDS = 2.0
_RESERVED_DESCRIPTORS = 64


class SpawnLog(Protocol):
    """Where spawns are written down (see `SpawnRecord`); both calls are synchronous and must be quick."""

    def spawned(self, record: SpawnRecord) -> None:
        """A process was started. What this raises fails the spawn, and the process is killed."""

    def reaped(self, pid: int) -> None:
        """It is gone. Must not raise: it would end the reaper."""


class NoSpawnLog:
    """Writes nothing down."""

    def spawned(self, record: SpawnRecord) -> None:
        """Ignored."""

    def reaped(self, pid: int) -> None:
        """Ignored."""


class Reaper:
    """Spawns children and reaps everything: ours by name, adopted orphans by count.

    `run` must be running before the first `spawn`. `entry_mask` and `entry_ignored` are the blocked and the ignored
    signals this process was started with; children get them back, save PIPE and XFSZ, which Python ignores by itself.
    `on_orphan` and the rings' `on_line` must not raise: either would end the reaper.
    """

    def __init__(
        self,
        *,
        install_id: str = "",
        entry_mask: frozenset[int] = frozenset(),
        entry_ignored: frozenset[int] = frozenset(),
        spawn_log: SpawnLog | None = None,
        on_orphan: Callable[[int], None] | None = None,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._install_id = install_id or uuid.uuid4().hex
        self._entry_mask = entry_mask
        self._entry_ignored = entry_ignored - {signal.SIGPIPE, signal.SIGXFSZ}
        self._log: SpawnLog = spawn_log or NoSpawnLog()
        self._on_orphan = on_orphan
        self._children: dict[int, Child] = {}
        self._pumps: TaskGroup | None = None
        self._empty = anyio.Event()
        self._linger_seconds = linger_seconds
        self.orphans_reaped = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Reap until cancelled.

        When cancelled it goes on while children are left, as others may just be stopping them in order in their own
        clean-up and would wait for ever without a reaper; after `linger_seconds` they are killed.
        """
        async with anyio.create_task_group() as group:
            serving = await group.start(self._serve)
            task_status.started()
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._wind_down()
                serving.cancel()

    async def _wind_down(self) -> None:
        if self._pumps is not None:
            with anyio.move_on_after(self._linger_seconds):
                await self.wait_empty()
        forgotten = self.children
        await self._end(lambda: self._children)
        for child in forgotten:
            await child.kill()  # what it left behind

    async def _serve(self, *, task_status: TaskStatus[anyio.CancelScope]) -> None:
        """Reap and pump until the scope given back is cancelled.

        Signals merge, so each wake-up drains, and a slow tick covers a lost one.
        """
        try:
            with anyio.CancelScope(shield=True) as scope, anyio.open_signal_receiver(signal.SIGCHLD) as received:
                async with anyio.create_task_group() as self._pumps:
                    self._pumps.start_soon(self._tick)
                    self.reap()
                    task_status.started(scope)
                    async for _ in received:
                        self.reap()
        finally:
            self._pumps = None

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
            child._ended(status)
            if not self._children:
                self._empty.set()
            self._log.reaped(pid)

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
        boot_id = procfs.boot_id()  # read here: after the fork nothing may fail for want of a descriptor
        # A slash separates the parts of the marker.
        marker = f"{self._install_id}/{command.name.replace('/', '_')}/{uuid.uuid4().hex[:12]}"
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            out_read, out_write = _pipe(ours, theirs)
            err_read, err_write = _pipe(ours, theirs)
            popen = self._fork(command, marker, out_write, err_write)
            ours.pop_all()
        pumps = [Pump(out_read, ring, "stdout"), Pump(err_read, ring, "stderr")]
        for pump in pumps:
            self._pumps.start_soon(pump.run, name=f"{command.name} output")
        child = self._register(command, ring, marker, popen, pumps)
        self._write_down(child, boot_id)
        return child

    def _fork(self, command: Command, marker: str, out_write: int, err_write: int) -> subprocess.Popen[bytes]:
        identity = command.identity
        argv = self._with_entry_ignored(command)
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, self._entry_mask)
        try:
            return subprocess.Popen(
                argv,
                env={**command.env, MARKER_VARIABLE: marker},
                cwd=command.cwd,
                stdin=subprocess.DEVNULL if command.stdin is None else command.stdin,
                stdout=out_write if command.stdout is None else command.stdout,
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

    def _register(
        self, command: Command, ring: Ring, marker: str, popen: subprocess.Popen[bytes], pumps: Sequence[Pump]
    ) -> Child:
        """Make it known; must not fail, as the process runs already."""
        # It may be gone already, but as nothing else waits it is at least a zombie: pidfd and stat still work.
        stat = procfs.read_stat(popen.pid)
        try:
            pidfd = os.pidfd_open(popen.pid)
        except OSError:  # out of descriptors, or a sandbox without the call
            pidfd = -1

        def drain() -> None:
            for pump in pumps:
                pump.drain()

        child = Child(
            command=command,
            pid=popen.pid,
            marker=marker,
            start_ticks=stat.start_ticks if stat else 0,
            ring=ring,
            _popen=popen,
            _pidfd=pidfd,
            _drain=drain,
        )
        if not self._children:
            self._empty = anyio.Event()
        self._children[popen.pid] = child
        return child

    def _write_down(self, child: Child, boot_id: str) -> None:
        command = child.command
        record = SpawnRecord(
            name=command.name,
            pid=child.pid,
            start_ticks=child.start_ticks,
            boot_id=boot_id,
            marker=child.marker,
            stop_signal=int(command.stop_signal),
            leads=command.kill_mode is KillMode.PROCESS,
        )
        try:
            self._log.spawned(record)
        except BaseException:
            child.signal_group(signal.SIGKILL)  # nobody will hold it, so nobody would ever stop it
            raise

    def _with_entry_ignored(self, command: Command) -> list[str]:
        """Wrap the command so that signals ignored when we were started are ignored in it again.

        Ours have handlers by now, which exec resets to the default; only a process in between can ignore them
        (`nohup` users meet this, hardly anybody else). The shell would swallow a failing exec, so it is foreseen here.
        """
        argv = list(command.argv)
        if not self._entry_ignored:
            return argv
        if "/" not in argv[0] and shutil.which(argv[0], path=os.pathsep.join(os.get_exec_path(command.env))) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0])
        numbers = " ".join(str(int(number)) for number in sorted(self._entry_ignored))  # real-time ones have no names
        return ["/bin/sh", "-c", f'trap "" {numbers}; exec "$@"', argv[0], *argv]

    async def wait_empty(self) -> None:
        """Return when no child of ours is left."""
        while self._children:
            await self._empty.wait()

    async def end_all(self) -> None:
        """KILL every child of this process, adopted ones included, and what they leave in turn; 2 s at most.

        For the way out: nothing but the supervisor may live in this process. Needs no running reaper.
        """
        await self._end(lambda: {*self._children, *adopted()})

    async def _end(self, which: Callable[[], Iterable[int]]) -> None:
        """KILL unreaped children and reap them, again and again until there are none; 2 s at most."""
        with anyio.move_on_after(FINAL_SECONDS):
            while held := self._kill(which):
                for process in held:
                    await process.wait()
        self.reap()

    def _kill(self, which: Callable[[], Iterable[int]]) -> list[Survivor]:
        self.reap()
        for child in self.children:
            child.signal_group(signal.SIGKILL)
        held: list[Survivor] = []
        for pid in which():
            # A child of ours and unreaped, so the number is its own: nothing else in this process waits.
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                held.append(Survivor(pid, "", 0, os.pidfd_open(pid)))
        return held


def adopted() -> list[int]:
    """Our direct children as the kernel lists them: after ours are gone, these are orphans we adopted."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/children") as listing:
                found.extend(int(pid) for pid in listing.read().split())
    return found


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe whose read end does not block; the child's end does, as programs expect."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read_end)
    theirs.callback(os.close, write_end)
    os.set_blocking(read_end, False)
    return read_end, write_end


def descriptors_left() -> int:
    """How many more file descriptors may be opened, roughly; for the preflight."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - len(os.listdir("/proc/self/fd")) - _RESERVED_DESCRIPTORS
