"""Processes that outlived what started them: workers of an ended leader, and children of a killed supervisor.

Found by evidence only (a marker in the environment, a session, a recorded start time), signalled by pidfd.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from supervisor.process import procfs

MARKER_VARIABLE = "SUPERVISOR_SPAWN"


@dataclass(eq=False)
class Survivor:
    """A process to be ended, held by a pidfd that is closed by `end_survivors` or `close`."""

    pid: int
    name: str
    _pidfd: int

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
        """Wait for its end; it need not be our child (a pidfd becomes readable at the end)."""
        if self._pidfd >= 0:
            await anyio.wait_readable(self._pidfd)

    def close(self) -> None:
        """Let go of the pidfd."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


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
    return Survivor(pid, stat.comm, pidfd)


def find_survivors(marker: str, leader: int) -> list[Survivor]:
    """What is left of a leader that was just reaped: same marker in the environment, or the same session.

    The kernel keeps a session's number in use while it has members, so a member that began before now and carries
    the leader's number belongs to it. Synchronous: it runs in the step that reaped the leader.
    """
    now = procfs.uptime_ticks()
    entry = f"{MARKER_VARIABLE}={marker}".encode()
    found: list[Survivor] = []
    for pid in procfs.pids():
        if pid in (leader, os.getpid()):
            continue
        stat = procfs.read_stat(pid)
        if stat is None or stat.state in "ZX" or stat.start_ticks > now:
            continue
        if stat.session == leader or procfs.has_environ(pid, entry):
            survivor = _hold(pid, stat.start_ticks)
            if survivor is not None:
                found.append(survivor)
    return found


async def end_survivors(survivors: list[Survivor], number: int) -> None:
    """Signal all and wait until all are gone; the list is emptied as they go. The caller bounds the time."""
    for survivor in survivors:
        survivor.signal(number)
    while survivors:
        await survivors[-1].wait()
        survivors.pop().close()


@dataclass(frozen=True)
class SpawnRecord:
    """What is written down of a spawn, so that a later supervisor can prove that a process is its own."""

    name: str
    pid: int
    start_ticks: int
    boot_id: str
    marker: str
    stop_signal: int


@dataclass(frozen=True)
class Leftover:
    """A running process of an earlier supervisor, and the signal that stops it in order."""

    name: str
    stop_signal: int
    process: Survivor


def find_leftovers(records: Sequence[SpawnRecord], install_id: str) -> list[Leftover]:
    """Running processes of earlier supervisors of this install.

    Evidence: a record whose pid, start time and boot all match, or our install's marker in the environment (which
    also finds grandchildren, and spawns killed before their record was written). Everything else is a stranger.
    """
    boot = procfs.boot_id()
    recorded = {record.pid: record for record in records if record.boot_id == boot}
    prefix = f"{MARKER_VARIABLE}={install_id}/".encode()
    signals = {record.marker: record.stop_signal for record in records}
    found: list[Leftover] = []
    for pid in procfs.pids():
        if pid == os.getpid():
            continue
        stat = procfs.read_stat(pid)
        if stat is None or stat.state in "ZX":
            continue
        record = recorded.get(pid)
        if record is not None and record.start_ticks == stat.start_ticks:
            name, number = record.name, record.stop_signal
        else:
            marker = _marker_of(pid, prefix)
            if marker is None:
                continue
            name, number = marker.split("/")[1], signals.get(marker, signal.SIGTERM)
        survivor = _hold(pid, stat.start_ticks)
        if survivor is not None:
            found.append(Leftover(name, number, survivor))
    return found


def _marker_of(pid: int, prefix: bytes) -> str | None:
    environ = procfs.read_environ(pid)
    marker = environ.get(MARKER_VARIABLE, "")
    if f"{MARKER_VARIABLE}={marker}".encode().startswith(prefix) and marker.count("/") == 2:
        return marker
    return None


async def end_leftovers(leftovers: Sequence[Leftover], *, grace_seconds: float) -> list[Leftover]:
    """Stop all in parallel, each by its own signal, KILL after the grace; returns those that could not be ended."""
    survivors = [leftover.process for leftover in leftovers]
    for leftover in leftovers:
        leftover.process.signal(leftover.stop_signal)
        leftover.process.signal(signal.SIGCONT)
    with anyio.move_on_after(grace_seconds):
        await _all_gone(survivors)
    for survivor in survivors:
        survivor.signal(signal.SIGKILL)
    with anyio.move_on_after(2.0):
        await _all_gone(survivors)
    stuck: list[Leftover] = []
    for leftover in leftovers:
        with contextlib.suppress(OSError):
            stat = procfs.read_stat(leftover.process.pid)
            if leftover.process.signal(0) and stat is not None and stat.state not in "ZX":
                stuck.append(leftover)
        leftover.process.close()
    return stuck


async def _all_gone(survivors: Sequence[Survivor]) -> None:
    for survivor in survivors:
        await survivor.wait()
