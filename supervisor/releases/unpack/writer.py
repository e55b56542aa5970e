"""Files, folders and links of a new tree, each made below an open folder: no path is ever walked, no link followed."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable
from typing import Self

from supervisor.releases.unpack.refusal import refusal

_OPEN_FOLDERS = 64
_COPY_BYTES = 256 * 1024
_WRITE_BYTES = 64 * 1024
"""To one write, as for what is received: larger ones may wait for memory in one piece."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Writer:
    """Makes the folder `root`, which may not be there yet, and what goes in. Paths are relative to it.

    Folders are made before what lies in them. Modes are 0755 and 0644 (the caller's umask must be 022), the owner is
    this process; times of files are kept. To be used in a `with`, which closes what is open. Raises OSError.
    """

    def __init__(self, root: str) -> None:
        try:
            os.mkdir(root, 0o755)
        except FileExistsError:
            raise refusal(f"its place {root!r} is taken", "delete what is there") from None
        self.root = os.open(root, _FOLDER)
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (*self._open.values(), self.root):
            os.close(descriptor)
        self._open.clear()

    def folder(self, path: str) -> None:
        """A new folder."""
        above, _, name = path.rpartition("/")
        os.mkdir(name, 0o755, dir_fd=self._folder(above))

    def link(self, path: str, target: str) -> None:
        """A new symbolic link; only when there is nothing else to make, so that nothing passes through it."""
        above, _, name = path.rpartition("/")
        os.symlink(target, name, dir_fd=self._folder(above))

    def file(self, path: str, pieces: Iterable[memoryview], *, executable: bool, mtime: int) -> str:
        """A new file of these pieces; gives their SHA-256 (hex)."""
        above, _, name = path.rpartition("/")
        digest = hashlib.sha256()
        descriptor = os.open(name, _NEW_FILE, 0o755 if executable else 0o644, dir_fd=self._folder(above))
        try:
            for piece in pieces:
                digest.update(piece)
                _write(descriptor, piece)
            os.utime(descriptor, (mtime, mtime))
        finally:
            os.close(descriptor)
        return digest.hexdigest()

    def copy(self, path: str, source: str, *, executable: bool, mtime: int) -> str:
        """A new file with the contents of `source`, one that was made before; gives their SHA-256 (hex)."""
        above, _, name = source.rpartition("/")
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder(above))
        try:
            blocks = iter(lambda: memoryview(os.read(descriptor, _COPY_BYTES)), memoryview(b""))
            return self.file(path, blocks, executable=executable, mtime=mtime)
        finally:
            os.close(descriptor)

    def _folder(self, path: str) -> int:
        """The descriptor of a folder of the tree, opened step by step from the nearest one that is open."""
        if not path:
            return self.root
        descriptor = self._open.get(path)
        if descriptor is not None:
            self._open.move_to_end(path)
            return descriptor
        above, _, name = path.rpartition("/")
        descriptor = os.open(name, _FOLDER, dir_fd=self._folder(above))
        self._open[path] = descriptor
        if len(self._open) > _OPEN_FOLDERS:
            _, oldest = self._open.popitem(last=False)
            os.close(oldest)
        return descriptor


def _write(descriptor: int, piece: memoryview) -> None:
    while piece:
        written = os.write(descriptor, piece if len(piece) <= _WRITE_BYTES else piece[:_WRITE_BYTES])
        if written == len(piece):
            return
        piece = piece[written:]
