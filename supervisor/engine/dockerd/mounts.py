"""The mount table, read; and mount(2) and umount(2), which Python has not."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

# include/uapi/linux/mount.h
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SHARED = 0x100000
MNT_DETACH = 2

_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of /proc/self/mountinfo, proc_pid_mountinfo(5); `options` has those of the file system too."""

    root: str
    point: str
    kind: str
    source: str
    options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Either of the two `ro` makes it so."""
        return "ro" in self.options


def parse_mounts(text: str) -> list[Mount]:
    """The table in its order; a later mount hides earlier ones on the same point."""
    return [_parse_line(line) for line in text.splitlines() if " - " in line]


def _parse_line(line: str) -> Mount:
    left, _, right = line.partition(" - ")
    fields = left.split(" ")
    kind, source, *super_options = right.split(" ")
    options = [*fields[5].split(","), *(super_options[0].split(",") if super_options else [])]
    return Mount(_plain(fields[3]), _plain(fields[4]), kind, _plain(source), frozenset(options))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def read_mounts() -> list[Mount]:
    """Our own table."""
    return parse_mounts(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def mount_of(path: str | Path, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds `path`, which must have no links in it: the longest point above it, the last of equals."""
    best: Mount | None = None
    for mount in mounts:
        if _is_below(str(path), mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def is_mount_point(path: str | Path, mounts: Iterable[Mount]) -> bool:
    """Whether something is mounted exactly there, a single file included (`os.path.ismount` misses bind mounts)."""
    return any(mount.point == str(path) for mount in mounts)


def _is_below(path: str, point: str) -> bool:
    return point == "/" or path == point or path.startswith(point + "/")


def mount(source: str, target: str | Path, kind: str, *, flags: int = 0, options: str = "") -> None:
    """mount(2); raises OSError naming the target."""
    _call("mount", source.encode(), bytes(Path(target)), kind.encode(), flags, options.encode() or None)


def unmount(target: str | Path) -> None:
    """umount2(2), detached so that it never waits; raises OSError naming the target."""
    _call("umount2", bytes(Path(target)), MNT_DETACH)


def _call(name: str, *arguments: bytes | int | None) -> None:
    function = getattr(ctypes.CDLL(None, use_errno=True), name)
    function.argtypes = [_c_type(name, position) for position in range(len(arguments))]
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        target = arguments[1 if name == "mount" else 0]
        raise OSError(number, os.strerror(number), os.fsdecode(target) if isinstance(target, bytes) else None)


_SIGNATURES: dict[str, Sequence[type]] = {
    "mount": (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p),
    "umount2": (ctypes.c_char_p, ctypes.c_int),
}


def _c_type(name: str, position: int) -> type:
    return _SIGNATURES[name][position]
