"""Reads all that is carried of a state folder, as it was at one moment, while its supervisor may go on.

No lock is needed: each file is replaced in one step or appended to. Where the folder looks the same before and after
the reading, what was read was all there at once; else it is read again. So of a secret that is being changed there is
what the change had recorded by then: the old value, both, or the new one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.core.errors import ConfigurationError, RejectedError
from supervisor.store.transfer.content import FILES, FOLDERS, MAX_FILES, OF_APP, RELEASES, why_not_carried

_TRIES = 50
_Look = tuple[int, int, int, int]
"""Inode, size, and the times of content and inode."""


def collect(state: Path, *, max_bytes: int) -> dict[str, bytes]:
    """The files by their paths in `state`. Blocks. Raises ConfigurationError, or RejectedError where it never rests."""
    try:
        for _ in range(_TRIES):
            seen = dict(_listed(state))
            if len(seen) > MAX_FILES:
                raise ConfigurationError(
                    f"cannot take all of {str(state)!r}: it has {len(seen):,} files, and {MAX_FILES:,} at most fit"
                )
            files = _read(state, seen, max_bytes)
            if files is not None and dict(_listed(state)) == seen:
                return files
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {str(error.filename or state)!r}: {error.strerror}; run this as the supervisor's user"
        ) from error
    raise RejectedError(f"cannot read {str(state)!r} at one moment: its files change all the time; try again")


def _read(state: Path, seen: dict[str, _Look], max_bytes: int) -> dict[str, bytes] | None:
    """None where one of them is gone by now."""
    if (total := sum(size for _, size, _, _ in seen.values())) > max_bytes:
        raise ConfigurationError(
            f"cannot take all of {str(state)!r}: {total:,} bytes, and {max_bytes:,} at most fit; see what is that big"
        )
    files: dict[str, bytes] = {}
    for path, (_, size, _, _) in seen.items():
        try:
            descriptor = os.open(state / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            files[path] = file.read(size)
    return files


def _listed(state: Path) -> Iterator[tuple[str, _Look]]:
    """What there is, links followed nowhere."""
    for name in FILES:
        yield from _file(state, name)
    for name in FOLDERS:
        yield from _below(state, name)
    for app in _names(state, RELEASES):
        for name in OF_APP:
            yield from _file(state, f"{RELEASES}/{app}/{name}")


def _below(state: Path, folder: str) -> Iterator[tuple[str, _Look]]:
    for name in _names(state, folder):
        path = f"{folder}/{name}"
        if (state / path).is_dir() and not (state / path).is_symlink():
            yield from _below(state, path)
        else:
            yield from _file(state, path)


def _names(state: Path, folder: str) -> list[str]:
    """Without those that are only half written."""
    place = state / folder
    if place.is_symlink():
        raise _no_file(folder, "a link")
    try:
        return sorted(name for name in os.listdir(place) if not name.startswith("."))
    except FileNotFoundError:
        return []


def _file(state: Path, path: str) -> Iterator[tuple[str, _Look]]:
    try:
        found = (state / path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if not stat.S_ISREG(found.st_mode):
        raise _no_file(path, "a link" if stat.S_ISLNK(found.st_mode) else "no plain file")
    if why := why_not_carried(path):
        raise ConfigurationError(f"cannot carry {path!r}, {why}; rename it or move it away")
    yield path, _look(found)


def _look(found: os.stat_result) -> _Look:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _no_file(path: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"cannot carry {path!r}: it is {what}, which is not followed; put the file itself there")
