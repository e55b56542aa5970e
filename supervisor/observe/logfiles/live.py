"""The file of one source that is written to now."""

from __future__ import annotations

import contextlib
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from supervisor.observe.logfiles.rotation import Keeping, live_name, rotated_name

_AT = re.compile(rb'"at": "([^"]{10,40})"')
_HEAD_BYTES = 100


class LiveFile:
    """Opened on its first line, 0600; each method may raise OSError, and the next call tries again."""

    def __init__(self, folder: Path, source: str, keeping: Keeping) -> None:
        self._folder = folder
        self._source = source
        self._keeping = keeping
        self._path = folder / live_name(source)
        self._descriptor = -1
        self._size = 0
        self._born = datetime.now(UTC)

    def append(self, data: bytes, now: datetime) -> Path | None:
        """Write whole lines; the path of the rotated file where this made one."""
        self._open(now)
        rotated = None
        if self._keeping.is_due(self._size, len(data), self._born, now):
            rotated = self._rotate(now)
            self._open(now)
        start = self._size
        try:
            while data:
                written = os.write(self._descriptor, data)
                self._size += written
                data = data[written:]
        except OSError:
            # All of these lines or none: half a line would be read as one with the next.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, start)
                self._size = start
            self.close()
            raise
        return rotated

    def close(self) -> None:
        """The next line opens it again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _rotate(self, now: datetime) -> Path:
        """A kill after the rename leaves no live file, and the next line makes one."""
        self.close()
        place = self._folder / rotated_name(self._source, now)
        while place.exists() or place.with_name(f"{place.name}.gz").exists():
            now += timedelta(microseconds=1)
            place = self._folder / rotated_name(self._source, now)
        self._path.rename(place)
        return place

    def _open(self, now: datetime) -> None:
        if self._descriptor >= 0 and self._is_in_place():
            return
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        self._descriptor = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._descriptor).st_size
        self._born = self._first_line_at() or now
        if self._size and os.pread(self._descriptor, 1, self._size - 1) != b"\n":
            self._size += os.write(self._descriptor, b"\n")  # a power cut within a line

    def _is_in_place(self) -> bool:
        """Whether nobody moved it away, such as a logrotate of the machine's."""
        try:
            return os.stat(self._path).st_ino == os.fstat(self._descriptor).st_ino
        except FileNotFoundError:
            return False

    def _first_line_at(self) -> datetime | None:
        """Linux does not tell Python when a file was made; its first line does."""
        found = _AT.search(os.pread(self._descriptor, _HEAD_BYTES, 0))
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(found[1].decode()) if found else None
        return None
