"""Reads of /proc: who a process is, when it began, whose child it is, and who listens on a port. No signals here."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from supervisor.process.sock_diag import listening_inodes


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/<pid>/stat used here; `start_ticks` is field 22, clock ticks since boot."""

    pid: int
    comm: str
    state: str
    ppid: int
    group: int
    session: int
    start_ticks: int


def _read(path: str) -> bytes:
    """A whole file of /proc by bare calls: half the time of a file object, and every exit reads one a process."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = [os.read(descriptor, 65536)]
        while parts[-1]:
            parts.append(os.read(descriptor, 65536))
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_stat(pid: int) -> Stat | None:
    """The process's stat line, or None when it is gone."""
    try:
        text = _read(f"/proc/{pid}/stat").decode(errors="replace")
    except OSError:
        return None
    # The name may hold spaces and brackets, so the fields are counted from the last bracket.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=pid,
        comm=head.partition("(")[2],
        state=fields[0],
        ppid=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
    )


def read_environ(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty where it is gone, foreign, or has overwritten it."""
    try:
        raw = _read(f"/proc/{pid}/environ")
    except OSError:
        return {}
    pairs = (item.partition("=") for item in raw.decode(errors="surrogateescape").split("\0"))
    return {key: value for key, separator, value in pairs if separator}


def has_environ(pid: int, entry: bytes) -> bool:
    """Whether the environment a process was started with holds `entry` (`b"NAME=value"`) as a whole entry."""
    try:
        raw = _read(f"/proc/{pid}/environ")
    except OSError:
        return False
    return entry in raw.split(b"\0")


def command_line(pid: int) -> str:
    """The command line for a message, blank-separated and cut at 200 characters; the bare name where it is empty."""
    try:
        raw = _read(f"/proc/{pid}/cmdline")
    except OSError:
        return "?"
    text = raw.replace(b"\0", b" ").decode(errors="replace").strip()
    if not text:
        stat = read_stat(pid)
        text = f"[{stat.comm}]" if stat else "?"
    return text[:200]


def pids() -> Iterator[int]:
    """Every process visible in our PID namespace."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


@functools.cache
def boot_id() -> str:
    """The kernel's id of this boot, so that a pid of an earlier boot is never taken for one of now."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime_ticks() -> int:
    """Now, in the unit and on the scale of `Stat.start_ticks`.

    The clock itself, not /proc/uptime: LXC shows containers an uptime of their own there, but the host's start times.
    """
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK") // 1_000_000_000


def session_work(session: int) -> tuple[float, bool]:
    """What the living processes of a session have used of a CPU, in seconds, and whether one of them wants more now.

    One that waits for its turn on a busy machine, or for the disk, uses nothing and is at work all the same.
    """
    ticks, wanting = 0, False
    for pid in pids():
        try:
            fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            ticks += int(fields[11]) + int(fields[12])  # utime and stime, fields 14 and 15
            wanting = wanting or fields[0] in (b"R", b"D")
    return ticks / os.sysconf("SC_CLK_TCK"), wanting


def ancestors() -> set[int]:
    """The processes we descend from, as far as our PID namespace shows them."""
    found: set[int] = set()
    pid = os.getppid()
    while pid > 0 and pid not in found:
        found.add(pid)
        stat = read_stat(pid)
        pid = stat.ppid if stat is not None else 0
    return found


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether `pid` is `ancestor` or below it, following parents; at most 64 levels are walked."""
    for _ in range(64):
        if pid == ancestor:
            return True
        stat = read_stat(pid)
        if stat is None or stat.ppid in (0, 1):
            return stat is not None and stat.ppid == ancestor
        pid = stat.ppid
    return False


def _holds_socket(pid: int, inodes: set[str]) -> bool:
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return False
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:[") and target[8:-1] in inodes:
            return True
    return False


def port_owners(port: int) -> list[int] | None:
    """The pids that listen on TCP `port` in our network namespace.

    None: nobody listens. Empty: somebody does whom we may not look into (another user's process, another PID
    namespace); a caller must treat that as "not provably ours", never as "free".
    """
    inodes = listening_inodes(port)
    if not inodes:
        return None
    return [pid for pid in pids() if _holds_socket(pid, inodes)]


def listens_on(pid: int, port: int) -> bool:
    """Whether one process listens on TCP `port`; quicker than `port_owners`, which looks at all."""
    inodes = listening_inodes(port)
    return bool(inodes) and _holds_socket(pid, inodes)


def describe_port_owner(port: int) -> str:
    """Who listens on `port`, for an error text: `pid 42 (nginx: master process)`."""
    owners = port_owners(port)
    if owners is None:
        return "nobody any more"
    if not owners:
        return "a process of another user or container"
    return f"pid {owners[0]} ({command_line(owners[0])})"
