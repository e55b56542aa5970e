"""Room for a release."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from supervisor.releases import room
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.room import Room
from supervisor.releases.space import Space
from tests.releases.test_base import manifest

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


def dump_of(size: int) -> Callable[[Manifest], Awaitable[int]]:
    async def bytes_needed(manifest: Manifest) -> int:
        return size

    return bytes_needed


async def test_old_releases_go_before_an_update_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pruned: list[bool] = []
    monkeypatch.setattr(room, "read_space", lambda place: Space(2000 * MIB, 1000 * MIB if pruned else 0))

    async def prune() -> None:
        pruned.append(True)

    await Room(tmp_path, prune).make(manifest())
    assert pruned == [True]
    await Room(tmp_path, prune).make(manifest())
    assert pruned == [True], "there was room"
    with pytest.raises(ReleaseError, match="bytes are missing on the disk"):
        await Room(tmp_path, prune).make(manifest(tree={"digest": "0" * 64, "bytes": 2000 * MIB, "entries": 1}))
    await Room(tmp_path, prune, dump_of(100 * MIB)).make(manifest())
    with pytest.raises(ReleaseError, match="for the snapshot"):
        await Room(tmp_path, prune, dump_of(1000 * MIB)).make(manifest())
