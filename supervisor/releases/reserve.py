"""Space kept back, so that what happened can be written down when the disk is full. Blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from supervisor.releases.layout import Layout

RESERVE_BYTES = 8 * 1024 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)
T = TypeVar("T")


def release_reserve(layout: Layout) -> None:
    """Give it back; `keep_reserve` takes it again."""
    layout.reserve.unlink(missing_ok=True)


def keep_reserve(layout: Layout) -> None:
    """Take it. Raises OSError; the next start tries again."""
    descriptor = os.open(layout.reserve, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
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
