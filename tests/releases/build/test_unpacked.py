"""What a build makes is what a supervisor unpacks."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from supervisor.process.reaper import Reaper
from supervisor.releases.model import Compression
from supervisor.releases.tree import tree_digest, walk_tree
from supervisor.releases.unpack.unpack import UnpackJob, unpack
from tests.releases.build.rig import LIMIT_SECONDS, build_in
from tests.releases.build.test_archive import rich_tree

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("compression", list(Compression))
async def test_a_tree_with_all_that_may_be_in_one_is_unpacked_as_it_was(
    tmp_path: Path, compression: Compression
) -> None:
    folder = rich_tree(tmp_path / "app")
    built = build_in(folder, tmp_path / "out", compression=compression)
    job = UnpackJob.of(built.manifest, built.archive, tmp_path / "tree")
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)
        made = await unpack(reaper, job, on_progress=lambda _: None, limit_seconds=LIMIT_SECONDS)
        group.cancel_scope.cancel()
    assert made.digest == built.manifest.tree.digest
    assert tree_digest(walk_tree(tmp_path / "tree")) == tree_digest(walk_tree(folder))
