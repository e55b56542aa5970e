"""Which processes a child has become, and where they listen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from supervisor.process import procfs
from supervisor.process.leftovers import MARKER_VARIABLE
from supervisor.process.sock_diag import read_listening


@dataclass(frozen=True, order=True)
class Listener:
    """One listening TCP socket: the address as text (`0.0.0.0`, `::`), the port, and a process that holds it."""

    address: str
    port: int
    pid: int = 0

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def process_tree(leader: int, marker: str) -> list[int]:
    """The living processes of a child: its session, its descendants, and whoever carries its marker.

    `leader` is 0 once it was reaped: its number may be a stranger's by then. About 20 us a process on the machine.
    """
    stats = {stat.pid: stat for pid in procfs.pids() if (stat := procfs.read_stat(pid)) and stat.state not in "ZX"}
    entry = f"{MARKER_VARIABLE}={marker}".encode()
    return [
        pid
        for pid, stat in stats.items()
        if (leader and (stat.session == leader or _is_below(pid, leader, stats))) or procfs.has_environ(pid, entry)
    ]


def _is_below(pid: int, ancestor: int, stats: Mapping[int, procfs.Stat]) -> bool:
    seen: set[int] = set()  # the table was not read in one moment, so it may hold a circle
    while pid in stats and pid not in seen:
        if pid == ancestor:
            return True
        seen.add(pid)
        pid = stats[pid].ppid
    return False


def listeners_of(pids: Iterable[int]) -> tuple[Listener, ...] | None:
    """Where processes listen, in order; None where nothing was found and not all of them may be looked into."""
    table = read_listening()
    found: dict[tuple[str, int], int] = {}
    closed = False
    for pid in pids:
        inodes = _sockets(pid)
        closed = closed or inodes is None
        for inode in inodes or ():
            if inode in table:
                found.setdefault(table[inode], pid)
    if closed and not found:
        return None
    return tuple(sorted(Listener(address, port, pid) for (address, port), pid in found.items()))


def _sockets(pid: int) -> set[str] | None:
    """The inodes of a process's sockets; None where we may not look, empty where it is gone."""
    found: set[str] = set()
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    except OSError:
        return found
    for descriptor in descriptors:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{descriptor}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found
