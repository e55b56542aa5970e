"""Memory: what processes take, and what our control groups (version 1 and 2) and the machine have left. Reads only."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_ROOT = Path("/")
_NO_LIMIT_BYTES = 1 << 60  # version 1 has no word for none: it gives the largest number of pages
_MOST_PSS_PROCESSES = 64
_MOST_PSS_BYTES = 4 << 30


class Bound(StrEnum):
    """What bounds the memory."""

    CONTAINER = "container"
    MACHINE = "machine"


@dataclass(frozen=True)
class Room:
    """What is left of one bound; memory that the kernel gives back for the asking counts as left."""

    free_bytes: int
    limit_bytes: int
    bound: Bound = Bound.CONTAINER


@dataclass(frozen=True)
class _Files:
    """How a version calls what is read, below `base`."""

    base: str
    limit: str
    used: str
    reclaimable: str


_V2 = _Files("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
_V1 = _Files("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def memory_room(root: Path = _ROOT) -> Room | None:
    """The tightest of our control group, those above it as far as we see them, and the machine; None: none is known."""
    return min((*_group_rooms(root), *_machine_room(root)), key=lambda room: room.free_bytes, default=None)


def _group_rooms(root: Path) -> Iterator[Room]:
    # A hybrid machine mounts both; only one of them has the memory controller, and the other yields nothing.
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            yield from _rooms(root, _V2, path)
        elif "memory" in controllers.split(","):
            yield from _rooms(root, _V1, path)


def _rooms(root: Path, files: _Files, path: str) -> Iterator[Room]:
    base = root / files.base
    own = base / path.lstrip("/")
    # What is not there yields nothing: where a container's group is mounted as if it were the root, that is ours.
    if ".." in own.parts:  # out of our namespace: the path means nothing here
        own = base
    for folder in (own, *own.parents):
        room = _room(folder, files)
        if room is not None:
            yield room
        if folder == base:
            return


def _room(folder: Path, files: _Files) -> Room | None:
    limit, used = _number(folder / files.limit), _number(folder / files.used)
    if limit is None or used is None or limit >= _NO_LIMIT_BYTES:
        return None
    reclaimable = _fields(folder / "memory.stat").get(files.reclaimable, 0)
    return Room(max(0, limit - used + reclaimable), limit)


def _machine_room(root: Path) -> Iterator[Room]:
    fields = _fields(root / "proc/meminfo")
    if "MemAvailable" in fields and "MemTotal" in fields:
        yield Room(fields["MemAvailable"] * 1024, fields["MemTotal"] * 1024, Bound.MACHINE)


def memory_of(pids: Iterable[int], root: Path = _ROOT) -> int | None:
    """Bytes that processes hold in memory; None where nothing can be read of any.

    Of several, what they share is counted once (PSS), as forked workers share most of what they have. That makes the
    kernel walk their pages, about 14 ms a GiB, so beyond 4 GiB or 64 processes it is counted for each (RSS).
    Blocks for as long as that takes.
    """
    resident = {pid: size for pid in pids if (size := _rss(root / f"proc/{pid}")) is not None}
    if not resident:
        return None
    plain = sum(resident.values())
    if len(resident) == 1 or len(resident) > _MOST_PSS_PROCESSES or plain > _MOST_PSS_BYTES:
        return plain
    return sum(_pss(root / f"proc/{pid}", size) for pid, size in resident.items())


def _rss(folder: Path) -> int | None:
    fields = _text(folder / "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else None


def _pss(folder: Path, otherwise: int) -> int:
    """Another user's process is closed to us without CAP_SYS_PTRACE, which containers lack."""
    fields = _fields(folder / "smaps_rollup")
    return fields["Pss"] * 1024 if "Pss" in fields else otherwise


def _fields(path: Path) -> dict[str, int]:
    """Lines of a name and a number, with a colon and a unit or without."""
    found: dict[str, int] = {}
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1])
    return found


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
