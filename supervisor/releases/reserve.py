"""Space kept back, so that what happened can be written down when the disk is full. Blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from supervisor.releases.layout import Layout

RESERVE_BYTES = 8 * 1024 * 1024
_PART_OF_DISK = 32
"""No more than this part of a small disk: the records need some ten KiB."""
_LEAST_BYTES = 256 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)
T = TypeVar("T")


def reserve_bytes(folder: Path) -> int:
    """How much is kept back on this folder's disk. Raises OSError."""
    found = os.statvfs(folder)
    return min(RESERVE_BYTES, max(found.f_blocks * found.f_frsize // _PART_OF_DISK, _LEAST_BYTES))


def release_reserve(layout: Layout) -> None:
    """Give it back; `keep_reserve` takes it again."""
    layout.reserve.unlink(missing_ok=True)


def keep_reserve(layout: Layout) -> None:
    """Take it. Raises OSError; the next start tries again."""
    descriptor = os.open(layout.reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, reserve_bytes(layout.root))
    finally:
        os.close(descriptor)


def with_reserve(layout: Layout, work: Callable[[], T]) -> T:
    """`work`, and where the disk is too full for it once more in the room of the reserve. Raises OSError."""
    try:
        return work()
    except OSError as error:
        if error.errno not in FULL or not layout.reserve.exists():
            raise
    release_reserve(layout)
    return work()
