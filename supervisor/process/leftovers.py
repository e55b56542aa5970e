"""Processes that outlived what started them: workers of an ended leader, and children of a killed supervisor.

Found by evidence only (a marker in the environment, a session, a recorded start time), signalled by pidfd.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import anyio

from supervisor.process import procfs

MARKER_VARIABLE = "SUPERVISOR_SPAWN"


@dataclass(eq=False)
class Survivor:
    """A process to be ended, held by a pidfd that is closed by `wait`, by `close`, or with the object."""

    pid: int
    name: str
    group: int
    _pidfd: int
    _waiting: anyio.Lock = field(default_factory=anyio.Lock)

    def signal(self, number: int) -> bool:
        """Send a signal; False when it is gone."""
        if self._pidfd < 0:
            return False
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def wait(self) -> None:
        """Wait for its end; it need not be our child (a pidfd becomes readable at the end). Any number may wait."""
        async with self._waiting:  # the event loop refuses a second waiter on one descriptor
            if self._pidfd >= 0:
                await anyio.wait_readable(self._pidfd)
                self.close()

    def close(self) -> None:
        """Let go of the pidfd."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def __del__(self) -> None:
        # Nobody is bound to end what a short command left running; its descriptor must not stay for that.
        self.close()


def _hold(pid: int, start_ticks: int) -> Survivor | None:
    """Open a pidfd and make sure that it is still the process that was looked at."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    stat = procfs.read_stat(pid)
    if stat is None or stat.start_ticks != start_ticks or stat.state in "ZX":
        os.close(pidfd)
        return None
    return Survivor(pid, stat.comm, stat.group, pidfd)


def find_survivors(marker: str, leader: int, ended_ticks: int) -> list[Survivor]:
    """What is left of a leader that was reaped at `ended_ticks`: same marker in the environment, or same session.

    The kernel keeps a session's number in use while it has members, so a member that began before the leader was
    reaped and carries its number belongs to it; later the number may be a stranger's. Synchronous, about 10 us a
    process on the machine.
    """
    entry = f"{MARKER_VARIABLE}={marker}".encode()
    found: list[Survivor] = []
    for pid in procfs.pids():
        if pid in (leader, os.getpid()):
            continue
        in_session = _session_of(pid) == leader
        if not in_session and not procfs.has_environ(pid, entry):
            continue
        stat = procfs.read_stat(pid)
        if stat is None or (stat.start_ticks > ended_ticks and not procfs.has_environ(pid, entry)):
            continue
        survivor = _hold(pid, stat.start_ticks)
        if survivor is not None:
            found.append(survivor)
    return found


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)  # a bare system call: nearly every process is told from ours by it alone
    except OSError:
        return -1


async def end_survivors(survivors: list[Survivor], number: int, *, spare_group: int = 0) -> None:
    """Signal all and wait until all are gone; the list is emptied as they go. The caller bounds the time.

    Members of `spare_group` are only waited for: they had the signal already, and a second one means "at once" to many.
    """
    for survivor in survivors:
        if survivor.group != spare_group:
            survivor.signal(number)
            survivor.signal(signal.SIGCONT)
    for survivor in list(survivors):
        await survivor.wait()
        if survivor in survivors:
            survivors.remove(survivor)


@dataclass(frozen=True)
class SpawnRecord:
    """What is written down of a spawn, so that a later supervisor can prove that a process is its own.

    `leads`: the stop signal is for it alone, as it ends what it started itself.
    """

    name: str
    pid: int
    start_ticks: int
    boot_id: str
    marker: str
    stop_signal: int
    leads: bool = False


@dataclass(frozen=True)
class Leftover:
    """A running process of an earlier supervisor, and the signal that stops it in order.

    `leader` is the pid of the one who ends it in its turn; 0 where the signal is for the process itself.
    """

    name: str
    stop_signal: int
    process: Survivor
    leader: int = 0


def find_leftovers(records: Sequence[SpawnRecord], install_id: str) -> list[Leftover]:
    """Running processes of earlier supervisors of this install.

    Evidence: a record whose pid, start time and boot all match; membership in the session such a process leads; or our
    install's marker in the environment (which also finds daemons, and spawns killed before their record was written).
    Everything else is a stranger, and so is whatever we descend from: a supervisor may be started again from a shell
    that its predecessor's app opened.
    """
    boot = procfs.boot_id()
    recorded = {record.pid: record for record in records if record.boot_id == boot}
    prefix = f"{MARKER_VARIABLE}={install_id}/".encode()
    marked = {record.marker: record for record in records}
    spared = {os.getpid(), *procfs.ancestors()}
    found: list[Leftover] = []
    for pid in procfs.pids():
        if pid in spared:
            continue
        stat = procfs.read_stat(pid)
        if stat is None or stat.state in "ZX":
            continue
        record = _record_of(stat, recorded)
        marker = record.marker if record is not None else _marker_of(pid, prefix)
        if marker is None:
            continue
        record = record or marked.get(marker)
        survivor = _hold(pid, stat.start_ticks)
        if survivor is not None:
            name, number = (record.name, record.stop_signal) if record else (marker.split("/")[1], signal.SIGTERM)
            found.append(Leftover(name, number, survivor, _leader_of(pid, record)))
    return found


def _record_of(stat: procfs.Stat, recorded: Mapping[int, SpawnRecord]) -> SpawnRecord | None:
    """The record that proves a process: its own, or that of the leader of its session, who must live to be proved."""
    for pid in (stat.pid, stat.session):
        record = recorded.get(pid)
        proved = stat if pid == stat.pid else procfs.read_stat(pid) if record is not None else None
        if record is not None and proved is not None and proved.start_ticks == record.start_ticks:
            return record
    return None


def _leader_of(pid: int, record: SpawnRecord | None) -> int:
    """Who ends it in its turn, where that one is still there to do so."""
    if record is None or not record.leads or record.pid == pid:
        return 0
    leader = procfs.read_stat(record.pid)
    alive = leader is not None and leader.start_ticks == record.start_ticks and leader.state not in "ZX"
    return record.pid if alive else 0


def _marker_of(pid: int, prefix: bytes) -> str | None:
    environ = procfs.read_environ(pid)
    marker = environ.get(MARKER_VARIABLE, "")
    if f"{MARKER_VARIABLE}={marker}".encode().startswith(prefix) and marker.count("/") == 2:
        return marker
    return None


async def end_leftovers(
    leftovers: Sequence[Leftover], *, grace_seconds: float, leader_seconds: float | None = None
) -> list[Leftover]:
    """Stop all in parallel, each by its own signal, KILL after the grace; returns those that could not be ended.

    One who ends others in their turn has `leader_seconds` with them: a daemon stops its containers first.
    """
    leaders = {leftover.leader for leftover in leftovers} - {0}
    led = [each for each in leftovers if each.leader or each.process.pid in leaders]
    rest = [each for each in leftovers if each not in led]
    async with anyio.create_task_group() as group:
        group.start_soon(_end, rest, grace_seconds)
        group.start_soon(_end, led, leader_seconds or grace_seconds)
    stuck: list[Leftover] = []
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            stat = procfs.read_stat(leftover.process.pid)
            if leftover.process.signal(0) and stat is not None and stat.state not in "ZX":
                stuck.append(leftover)
        leftover.process.close()
    return stuck


async def _end(leftovers: Sequence[Leftover], grace_seconds: float) -> None:
    survivors = [leftover.process for leftover in leftovers]
    for leftover in leftovers:
        if not leftover.leader:
            leftover.process.signal(leftover.stop_signal)
            leftover.process.signal(signal.SIGCONT)
    with anyio.move_on_after(grace_seconds):
        await _all_gone(survivors)
    for survivor in survivors:
        survivor.signal(signal.SIGKILL)
    with anyio.move_on_after(2.0):
        await _all_gone(survivors)


async def _all_gone(survivors: Sequence[Survivor]) -> None:
    for survivor in survivors:
        await survivor.wait()
