"""One daemon, one data root: an flock that names its holder."""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from supervisor.core.errors import EngineError


class RootLock:
    """Held from the first start to the end of the supervisor; the kernel drops it with us.

    Without it a second daemon on the root waits for containerd's database and dies after 15 s with no clear word.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    @property
    def held(self) -> bool:
        """Whether we hold it."""
        return self._descriptor >= 0

    def take(self) -> None:
        """Take it without waiting; a second call does nothing. Raises E24 naming the holder, E23 where it cannot be."""
        if self.held:
            return
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EngineError(
                "E23", f"cannot lock data root {str(self._path.parent)!r}: {error.strerror}; make it writable"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 300).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EngineError(
                "E24",
                f"cannot use data root {str(self._path.parent)!r}: another supervisor uses it ({holder}); "
                f"stop that one, or give each container a volume of its own: one data root serves one daemon",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{_identity()}\n".encode(), 0)
        self._descriptor = descriptor

    def drop(self) -> None:
        """Let go of it."""
        if self.held:
            os.close(self._descriptor)
            self._descriptor = -1


def _identity() -> str:
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"container {os.uname().nodename}, pid {os.getpid()} there, since {since}"
