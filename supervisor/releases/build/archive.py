"""Writing an archive: one pass, each file read once, flat in memory, and the same bytes for the same entries."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from supervisor.releases.build.compress import Compressor, compressor
from supervisor.releases.model import Compression, Entry, Kind, ReleaseError

TOP = "app"
"""The folder of an archive that holds the tree."""
_BLOCK = 1024 * 1024
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_TYPES = {Kind.FOLDER: tarfile.DIRTYPE, Kind.FILE: tarfile.REGTYPE, Kind.LINK: tarfile.SYMTYPE}


@dataclass(frozen=True)
class Packed:
    """What was written: the archive's SHA-256 (hex) and size in bytes, and the entries with their content."""

    sha256: str
    size: int
    entries: tuple[Entry, ...]

    @property
    def tree_bytes(self) -> int:
        """Of all files, unpacked."""
        return sum(entry.size for entry in self.entries)


def write_archive(
    root: Path, entries: Sequence[Entry], target: BinaryIO, *, compression: Compression, mtime: int = 0
) -> Packed:
    """Pack `entries` of `root` as they stand into `target`, which is not closed.

    Every entry has the time `mtime` (seconds of Unix time) and the owner 0. Raises ReleaseError for a file that is not
    as it was when the entries were collected, or that changes while it is read; OSError where writing fails.
    """
    sink = _Sink(target, compressor(compression, _total(entries, mtime)))
    packed: list[Entry] = []
    for entry in entries:
        sink.write(_header(entry, mtime))
        packed.append(_write_file(root, entry, sink) if entry.kind is Kind.FILE else entry)
    sink.write(bytes(_padding(sink.taken + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE) + 2 * tarfile.BLOCKSIZE))
    sink.finish()
    return Packed(sink.digest.hexdigest(), sink.size, tuple(packed))


class _Sink:
    """Takes the tar stream; counts and hashes what becomes of it."""

    def __init__(self, target: BinaryIO, packer: Compressor) -> None:
        self._target = target
        self._packer = packer
        self.digest = hashlib.sha256()
        self.taken = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        self.taken += len(data)
        self._put(self._packer.compress(data))

    def finish(self) -> None:
        self._put(self._packer.flush())

    def _put(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        self._target.write(data)


def _total(entries: Sequence[Entry], mtime: int) -> int:
    """The length of the tar stream, which zstd writes into its head."""
    length = sum(len(_header(entry, mtime)) + entry.size + _padding(entry.size) for entry in entries)
    length += 2 * tarfile.BLOCKSIZE
    return length + _padding(length, tarfile.RECORDSIZE)


def _header(entry: Entry, mtime: int) -> bytes:
    """ustar; a pax header before it only for what has no room in it."""
    info = tarfile.TarInfo(f"{TOP}/{entry.path}")
    info.type = _TYPES[entry.kind]
    info.mode = 0o644 if entry.kind is Kind.FILE and not entry.executable else 0o755
    info.size = entry.size
    info.mtime = mtime
    info.linkname = entry.content if entry.kind is Kind.LINK else ""
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _padding(length: int, block: int = tarfile.BLOCKSIZE) -> int:
    return -length % block


def _write_file(root: Path, entry: Entry, sink: _Sink) -> Entry:
    digest = hashlib.sha256()
    for block in _blocks(root / entry.path, entry):
        digest.update(block)
        sink.write(block)
    sink.write(bytes(_padding(entry.size)))
    return replace(entry, content=digest.hexdigest())


def _blocks(place: Path, entry: Entry) -> Iterator[bytes]:
    """The file's content, exactly as much of it as was collected, from one state of the file."""
    try:
        with open(place, "rb", opener=_open_no_other) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode) or before.st_size != entry.size:
                raise _changed(entry)
            yield from _exactly(file, entry)
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise _changed(entry)
    except OSError as error:  # of the reading alone: what the consumer raises does not come by here
        if error.errno in _GONE:
            raise _changed(entry) from error
        raise ReleaseError(
            f"cannot pack {entry.path!r}: it cannot be read ({error.strerror}); make it readable, or name it in "
            f".releaseignore, then build again"
        ) from error


def _open_no_other(place: str, flags: int) -> int:
    """Through no link, and without waiting for the other end of a fifo."""
    return os.open(place, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def _exactly(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.size
    while left:
        block = file.read(min(_BLOCK, left))
        if not block:
            raise _changed(entry)
        left -= len(block)
        yield block


def _changed(entry: Entry) -> ReleaseError:
    return ReleaseError(
        f"cannot pack {entry.path!r}: it changed while the release was built; let end what writes to it (a build, "
        f"a watcher, the app), or name it in .releaseignore, then build again"
    )
