"""The digest of a tree: what was built, what was unpacked and what lies there are the same tree, or they are not."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisor.releases.model import Entry, Kind, ReleaseError

RECORDS = ".release"
"""The folder within a release that holds our records of it; no part of the tree."""
_BLOCK = 1024 * 1024


def tree_digest(entries: Iterable[Entry]) -> str:
    """SHA-256 (hex) over all entries in the order of their paths' bytes, each field ended by a NUL.

    A folder counts by its path, a file also by its content and whether it is executable, a link by its target. Owners
    and times do not count.
    """
    digest = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: os.fsencode(entry.path)):
        mark = "x" if entry.executable else "-"
        for field in (entry.kind.value, mark, entry.content, entry.path):
            digest.update(os.fsencode(field) + b"\0")
    return digest.hexdigest()


def walk_tree(root: Path) -> Iterator[Entry]:
    """All entries below `root` but our records, links not followed; files are read whole.

    Raises ReleaseError for what no release may hold (a device, a socket, a fifo), OSError where it cannot be read.
    """
    yield from _walk(root, "")


def _walk(folder: Path, above: str) -> Iterator[Entry]:
    with os.scandir(folder) as found:
        listed = sorted(found, key=lambda item: os.fsencode(item.name))
    for item in listed:
        path = above + item.name
        if path == RECORDS:
            continue
        yield _entry(Path(item.path), path)
        if item.is_dir(follow_symlinks=False):
            yield from _walk(Path(item.path), f"{path}/")


def _entry(place: Path, path: str) -> Entry:
    status = place.lstat()
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, Kind.FOLDER)  # a folder's setgid is for those who write there, which nobody does
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, Kind.LINK, os.readlink(place))
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise ReleaseError(f"cannot take {path!r} into a release: it runs as another user (setuid or setgid)")
    if stat.S_ISREG(status.st_mode):
        executable = bool(status.st_mode & stat.S_IXUSR)
        return Entry(path, Kind.FILE, file_digest(place), status.st_size, executable)
    raise ReleaseError(
        f"cannot take {path!r} into a release: it is no file, folder or link; remove it, or name it in .releaseignore"
    )


def file_digest(place: Path) -> str:
    """SHA-256 (hex) of a file, which is not followed where it is a link."""
    digest = hashlib.sha256()
    descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
