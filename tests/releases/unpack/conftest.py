"""The rig of one test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from supervisor.process.reaper import Reaper
from tests.releases.unpack.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    """One that runs; a test that leaves a child behind fails."""
    made = Reaper(linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(made.run)
        yield made
        left = made.children
        group.cancel_scope.cancel()
    assert left == []
