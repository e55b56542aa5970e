"""Space kept back, so that what happened can be written down when the disk is full. Blocks."""

from __future__ import annotations

import os

from supervisor.releases.layout import Layout

RESERVE_BYTES = 8 * 1024 * 1024


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
