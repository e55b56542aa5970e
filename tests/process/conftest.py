"""A running reaper for the tests of this room, and the check that a test left nothing behind."""

from __future__ import annotations

import ctypes
import os
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper, adopted

PR_SET_CHILD_SUBREAPER = 36


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """A reaper that is running; what a test forgot is killed at once."""
    async with anyio.create_task_group() as group:
        made = Reaper(linger_seconds=0)
        await group.start(made.run)
        yield made
        group.cancel_scope.cancel()


@pytest.fixture
def subreaper() -> Iterator[None]:
    """Orphans come to this process while the test runs."""
    libc = ctypes.CDLL(None)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture
def ring() -> Ring:
    return Ring("test")


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Every test leaves as many descriptors open as it found, and no child."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    left = set(os.listdir("/proc/self/fd")) - before
    assert len(left) <= 1, [os.readlink(f"/proc/self/fd/{number}") for number in left if number.isdigit()]
    assert adopted() == []
