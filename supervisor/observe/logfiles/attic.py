"""Rotated files: to gzip, and away when they are too old, in a thread that gives way to everything else."""

from __future__ import annotations

import contextlib
import gzip
import os
import queue
import shutil
import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from supervisor.observe.logfiles.rotation import Keeping, rotated_at

_NICENESS = 19
_PIECE_BYTES = 64 * 1024


class Attic:
    """One file after the other; a kill at any moment leaves the file, or its gzip, or both, and never a part of one.

    Removing is done in the same thread: else a file could come back as a gzip that was being made of it.
    """

    def __init__(self, folder: Path, keeping: Keeping, tell: Callable[[str], None]) -> None:
        self._folder = folder
        self._keeping = keeping
        self._tell = tell
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="log attic", daemon=True).start()

    def put(self, path: Path) -> None:
        """Compress one."""
        self._jobs.put(partial(compress, path))

    def expire(self, source: str, now: datetime) -> None:
        """Remove what of a source is too old or too much."""
        self._jobs.put(partial(self._expire, source, now))

    def take_up(self) -> None:
        """Go on where an earlier process was killed."""
        self._jobs.put(self._take_up)

    def _take_up(self) -> None:
        for path in self._folder.glob(".*.log.gz.tmp"):
            path.unlink(missing_ok=True)
        for path in sorted(self._folder.glob("*.log")):
            if rotated_at(path.name) is not None:
                self.put(path)

    def _expire(self, source: str, now: datetime) -> None:
        for name in self._keeping.expired(os.listdir(self._folder), source, now):
            (self._folder / name).unlink(missing_ok=True)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            # Linux: of this thread alone, by its own id.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while True:
            job = self._jobs.get()
            try:
                job()
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                self._tell(
                    f"cannot tidy up the log files in {str(self._folder)!r}: {error.strerror}; "
                    "they are kept as they are: make room there"
                )


def compress(path: Path) -> None:
    """Replace `path` by `path`.gz, 0600. Raises OSError, and `path` is as it was then."""
    made = path.with_name(f"{path.name}.gz")
    if not made.exists():
        part = path.with_name(f".{made.name}.tmp")
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(path, "rb") as plain, os.fdopen(descriptor, "wb") as file:
                with gzip.GzipFile("", "wb", 6, file) as packed:
                    shutil.copyfileobj(plain, packed, _PIECE_BYTES)
                file.flush()
                os.fsync(file.fileno())
            part.rename(made)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    path.unlink()
