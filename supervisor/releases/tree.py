"""The digest of a tree: what was built, what was unpacked and what lies there are the same tree, or they are not."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path

from supervisor.releases.model import Entry, Kind, ReleaseError

RECORDS = ".release"
"""The folder within a release that holds our records of it; no part of the tree."""
_BLOCK = 1024 * 1024
_TICK_NANOSECONDS = 100_000_000
"""The kernel's clock of files is no finer than this: two changes within may leave one and the same time."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def tree_digest(entries: Iterable[Entry]) -> str:
    """SHA-256 (hex) over all entries in the order of their paths' bytes, each field ended by a NUL.

    A folder counts by its path, a file also by its content and whether it is executable, a link by its target. Owners
    and times do not count.
    """
    digest = hashlib.sha256()
    for path, entry in sorted(((os.fsencode(entry.path), entry) for entry in entries), key=itemgetter(0)):
        mark = "x" if entry.executable else "-"
        digest.update(os.fsencode(f"{entry.kind.value}\0{mark}\0{entry.content}\0") + path + b"\0")
    return digest.hexdigest()


class Digests:
    """Digests of files that were read, so that one which is looked at again is not read again. `now` in nanoseconds.

    Known by device, inode, size and both times: whoever writes to a file sets its change time, and cannot set it back.
    A file that was changed just before it was read is not kept, as a change just after would have the same time.
    """

    def __init__(self, now: Callable[[], int] = time.time_ns) -> None:
        self._now = now
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, status: os.stat_result) -> str:
        """The SHA-256 (hex) of a file that is still in this state; empty where it is not known."""
        return self._known.get(_state(status), "")

    def note(self, status: os.stat_result, digest: str) -> None:
        """A file was read, after this status of it was asked for."""
        if status.st_ctime_ns < self._now() - _TICK_NANOSECONDS:
            self._known[_state(status)] = digest


def _state(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def walk_tree(root: Path, digests: Digests | None = None) -> Iterator[Entry]:
    """All entries below `root` but our records, links not followed; files that `digests` does not know are read whole.

    Raises ReleaseError for what no release may hold (a device, a socket, a fifo), OSError where it cannot be read.
    """
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield from _walk(top, "", Digests() if digests is None else digests)
    finally:
        os.close(top)


def _walk(folder: int, above: str, digests: Digests) -> Iterator[Entry]:
    for item in _listed(folder, above):
        path = above + item.name
        if path == RECORDS:
            continue
        try:
            entry = _entry(folder, item, path, digests)
        except OSError as error:  # as `_named` does, which is much slower where it is for each file
            error.filename = path
            raise
        yield entry
        if entry.kind is Kind.FOLDER:
            yield from _below(folder, item.name, path, digests)


def _listed(folder: int, above: str) -> list[os.DirEntry[str]]:
    with _named(above), os.scandir(folder) as found:
        return sorted(found, key=lambda item: os.fsencode(item.name))


def _below(folder: int, name: str, path: str, digests: Digests) -> Iterator[Entry]:
    with _named(path):
        below = os.open(name, _FOLDER, dir_fd=folder)
    try:
        yield from _walk(below, f"{path}/", digests)
    finally:
        os.close(below)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """The system says the last part of a path only, or a descriptor."""
    try:
        yield
    except OSError as error:
        error.filename = path
        raise


def _entry(folder: int, item: os.DirEntry[str], path: str, digests: Digests) -> Entry:
    if item.is_dir(follow_symlinks=False):
        return Entry(path, Kind.FOLDER)  # a folder's setgid is for those who write there, which nobody does
    if item.is_symlink():
        return Entry(path, Kind.LINK, os.readlink(item.name, dir_fd=folder))
    return _file(folder, item, path, digests)


def _file(folder: int, item: os.DirEntry[str], path: str, digests: Digests) -> Entry:
    status = item.stat(follow_symlinks=False)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        raise ReleaseError(f"cannot take {path!r} into a release: it runs as another user (setuid or setgid)")
    if not stat.S_ISREG(status.st_mode):
        raise ReleaseError(
            f"cannot take {path!r} into a release: it is no file, folder or link; remove it, or name it in "
            f".releaseignore"
        )
    digest = digests.of(status)
    if not digest:
        digest = _read_digest(item.name, status.st_size, folder)
        digests.note(status, digest)
    return Entry(path, Kind.FILE, digest, status.st_size, bool(status.st_mode & stat.S_IXUSR))


def file_digest(place: Path) -> str:
    """SHA-256 (hex) of a file, which is not followed where it is a link."""
    return _read_digest(str(place), _BLOCK, None)


def _read_digest(name: str, size: int, folder: int | None) -> str:
    digest = hashlib.sha256()
    descriptor = os.open(name, _FILE, dir_fd=folder)
    # Most files are small: one read for all of it, which is its end too where it gives less than was asked for.
    asked = min(size + 1, _BLOCK)
    try:
        while block := os.read(descriptor, asked):
            digest.update(block)
            if len(block) < asked:
                break
    finally:
        os.close(descriptor)
    return digest.hexdigest()
