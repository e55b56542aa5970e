"""Snapshots are kept as long as their release, and only what was proved is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.releases.model import BAKED
from supervisor.releases.snapshots import Snapshot, begin, kept, restore_command, stale
from tests.releases.rig import NOW
from tests.releases.test_updates import Room

pytestmark = pytest.mark.anyio


async def room_with(tmp_path: Path, keep: int) -> Room:
    room = await Room(tmp_path / "app").open(keep=keep)
    room.database.saves = True
    return room


async def test_a_snapshot_goes_with_its_release(tmp_path: Path) -> None:
    room = await room_with(tmp_path, keep=2)
    releases = [await room.good(f"{number}.0") for number in range(1, 5)]
    assert {each.release for each in kept(room.layout)} == set(releases[2:])
    assert len(list(room.layout.snapshots.iterdir())) == 2
    (saved,) = await room.updates.kept.snapshots(releases[3])
    assert (saved.at, saved.bytes, saved.tables) == (NOW, 9, 1)
    assert await room.updates.kept.snapshots(BAKED) == []


@pytest.mark.parametrize("record", [None, "", "[]", '{"release": "x"}'])
async def test_what_was_never_proved_is_gone_after_the_next_start(tmp_path: Path, record: str | None) -> None:
    room = await room_with(tmp_path, keep=5)
    release = await room.good("1.0")
    folder = room.layout.snapshots / "cut-short"
    begin(folder).write_text("half of it")
    if record is not None:
        (folder / "snapshot.json").write_text(record)
    assert stale(room.layout, [release]) == [folder]
    await (await Room(room.root).open()).updates.tidy()
    assert [path.name for path in room.layout.snapshots.iterdir()] != [folder.name]
    assert [each.release for each in kept(room.layout)] == [release]


def test_the_command_to_restore_may_be_given_to_a_shell_as_it_is() -> None:
    saved = Snapshot(release="r", at=NOW, file="/state/with a space/database.dump", bytes=1, tables=1)
    assert saved.how_to_restore.endswith("--dbname \"$DATABASE_URL\" '/state/with a space/database.dump'")
    assert restore_command(Path(saved.file)) == saved.how_to_restore
