"""All that may be asked of an app's releases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from supervisor.core.errors import MigrationError, RejectedError
from supervisor.releases import room as room_module
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.recovery import present
from supervisor.releases.space import Space
from supervisor.releases.updates import Updates
from tests.releases.rig import NOW, Place, sent

pytestmark = pytest.mark.anyio


class Room(Place):
    """With the updates opened."""

    async def open(self, **values: int) -> Room:
        self.live: set[str] = set()
        self.updates = Updates(self.layout, now=lambda: NOW, live=lambda: self.live, **values)
        self.told = await self.updates.open()
        return self

    async def good(self, version: str, **values: object) -> str:
        """A release that was applied and confirmed."""
        admitted, archive = self.release(version, **values)
        await self.updates.apply(admitted, sent(archive), self.steps, actor="test")
        assert await self.updates.confirm()
        return admitted.release

    async def back(self, target: str = "") -> str:
        return (await self.updates.roll_back(target, self.steps, actor="test")).release

    async def uses(self) -> dict[str, str]:
        return {row.release: row.use for row in await self.updates.kept.listed()}

    async def outcomes(self) -> list[str]:
        return [f"{line.action} {line.outcome}" for line in await self.updates.kept.history()]


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    return await Room(tmp_path / "app").open()


async def test_a_new_place_serves_the_image_s_own(room: Room) -> None:
    assert room.told == []
    assert room.updates.kept.tree() is None
    assert await room.uses() == {BAKED: "active"}


async def test_confirmed_releases_follow_each_other(room: Room) -> None:
    first = await room.good("1.0")
    second = await room.good("2.0")
    assert await room.uses() == {second: "active", first: "previous", BAKED: ""}
    assert room.updates.kept.tree() == room.layout.tree(second)
    assert room.layout.previous.resolve() == room.layout.tree(first).resolve()
    assert await room.outcomes() == ["apply ok", "apply ok"]
    assert await room.updates.kept.verify_history() == 2


async def test_back_goes_to_the_one_before_and_forth_again(room: Room) -> None:
    first, second = await room.good("1.0"), await room.good("2.0")
    assert await room.back() == first
    assert room.serving.tree == room.layout.tree(first)
    assert await room.uses() == {first: "active", second: "previous", BAKED: ""}
    assert await room.back() == second
    assert await room.outcomes() == ["apply ok", "apply ok", "roll back ok", "roll back ok"]


@pytest.mark.parametrize("how", ["asked for", "given up", "at a boot"])
async def test_history_of_a_roll_back_names_the_database_of_before_the_release_that_is_left(
    room: Room, how: str
) -> None:
    await room.good("1.0")
    room.database.saves = True
    second, archive = room.release("2.0")
    await room.updates.apply(second, sent(archive), room.steps, actor="test")
    if how == "asked for":
        assert await room.updates.confirm()
        await room.back()
    elif how == "given up":
        await room.updates.give_up_trial("it crashed 3 times in 60 s")
    else:
        for _ in range(3):
            room = await Room(room.root).open()
    (snapshot,) = await room.updates.kept.snapshots(second.release)
    line = (await room.updates.kept.history())[-1]
    assert f"the database as it was before release {second.release} is saved in {snapshot.file!r}" in line.reason
    assert "pg_restore --clean" in line.reason
    room.database.saves = False
    await room.good("3.0")
    await room.back()
    assert (await room.updates.kept.history())[-1].reason == ""


async def test_back_goes_to_the_image_s_own_by_name(room: Room) -> None:
    first = await room.good("1.0")
    assert await room.back() == BAKED
    assert room.serving.tree is None
    assert await room.uses() == {BAKED: "active", first: "previous"}
    assert not room.layout.current.is_symlink()


async def test_back_from_a_trial_goes_to_the_good_one(room: Room) -> None:
    first = await room.good("1.0")
    second, archive = room.release("2.0")
    await room.updates.apply(second, sent(archive), room.steps, actor="test")
    assert await room.back() == first
    assert await room.outcomes() == ["apply ok", "apply rolled_back", "roll back ok"]
    assert room.updates.state.releases[second.release].failed == "rolled back by test"


@pytest.mark.parametrize("target", ["9.9-aaaaaaaaaaaa", "../../etc", "active"])
async def test_back_to_what_is_not_there_is_refused_with_what_is(room: Room, target: str) -> None:
    first, second = await room.good("1.0"), await room.good("2.0")
    with pytest.raises(RejectedError, match=f"possible are: {first}, baked"):
        await room.back(second if target == "active" else target)


async def test_back_without_any_other_release_is_refused(room: Room) -> None:
    with pytest.raises(RejectedError, match="no way back at all"):
        await room.back()


async def test_back_that_does_not_become_healthy_changes_nothing(room: Room) -> None:
    await room.good("1.0")
    second = await room.good("2.0")
    room.serving.before = RejectedError("it does not listen")
    with pytest.raises(RejectedError, match="is not rolled back: it does not listen"):
        await room.back()
    assert (room.updates.state.active, room.updates.state.good) == (second, second)
    assert (await room.outcomes())[-1] == "roll back rejected"


async def test_the_schema_stays_what_it_is_when_code_goes_back(room: Room) -> None:
    first = await room.good("1.0", schema={"level": 1})
    second = await room.good("2.0", schema={"level": 2, "min_supported": 1})
    await room.good("3.0", schema={"level": 3, "min_supported": 2})
    assert await room.back(second) == second
    with pytest.raises(RejectedError, match="the schema is at level 3, which needs code of level 2 or above"):
        await room.back(first)


@pytest.mark.parametrize("migrated", [False, True])
async def test_a_refused_release_counts_for_the_schema_once_it_has_migrated(room: Room, migrated: bool) -> None:
    first = await room.good("1.0", schema={"level": 1})
    await room.good("2.0", schema={"level": 1})
    refused, archive = room.release("3.0", schema={"level": 2, "min_supported": 2})
    if migrated:
        room.serving.before = RejectedError("it answers 500")
    else:
        room.database.fails = MigrationError("no such table")
    with pytest.raises(RejectedError, match="is not applied"):
        await room.updates.apply(refused, sent(archive), room.steps, actor="test")
    room.serving.before = None
    if migrated:
        with pytest.raises(RejectedError, match="cannot live on the database"):
            await room.back(first)
    else:
        assert await room.back(first) == first


async def test_back_to_code_that_cannot_live_on_the_schema_is_refused(room: Room) -> None:
    old = await room.good("1.0", schema={"level": 3})
    near = await room.good("2.0", schema={"level": 4, "min_supported": 3})
    far = await room.good("3.0", schema={"level": 6, "min_supported": 4})
    with pytest.raises(RejectedError, match="needs code of level 4 or above, and that release is of level 3"):
        await room.back(old)
    assert await room.back(near) == near
    assert room.updates.state.previous == far


async def test_a_trial_that_is_given_up_leaves_the_good_one(room: Room) -> None:
    first = await room.good("1.0")
    second, archive = room.release("2.0")
    await room.updates.apply(second, sent(archive), room.steps, actor="test")
    assert await room.updates.give_up_trial("it crashed 3 times in 60 s") == first
    assert await room.outcomes() == ["apply ok", "apply rolled_back"]
    assert await room.updates.give_up_trial("again") == ""
    assert not await room.updates.confirm()


async def test_only_so_many_are_kept_and_none_that_runs(tmp_path: Path) -> None:
    room = await Room(tmp_path / "app").open(keep=2)
    made = []
    for number in range(1, 6):
        made.append(await room.good(f"{number}.0"))
        room.live = {made[0]}
    assert present(room.layout) == {made[0], made[3], made[4]}
    room.live = set()
    assert await room.updates.prune() == [made[0]]
    assert set(room.updates.state.releases) == {made[3], made[4]}
    assert not list(room.layout.trash.iterdir())
    again = await Room(tmp_path / "app").open()
    assert again.updates.state == room.updates.state


async def test_an_update_without_room_deletes_what_need_not_be_kept_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = await Room(tmp_path / "app").open(keep=50)
    made = [await place.good(f"{number}.0") for number in range(1, 6)]
    few = await Room(tmp_path / "app").open(keep=2)
    mib = 1024 * 1024
    monkeypatch.setattr(
        room_module, "read_space", lambda folder: Space(2000 * mib, 1000 * mib * (len(present(few.layout)) < 4))
    )
    few.steps = replace(few.steps, space=room_module.Room(few.layout.root, few.updates.make_room))
    sixth = await few.good("6.0")
    assert set(few.updates.state.releases) == present(few.layout) == {made[4], sixth}


async def test_a_refused_release_leaves_nothing_but_itself_on_the_disk(room: Room) -> None:
    room.unpacking.fails = ReleaseError("a device in it")
    bad, archive = room.release("1.0")
    with pytest.raises(RejectedError):
        await room.updates.apply(bad, sent(archive), room.steps, actor="test")
    assert not list(room.layout.trash.iterdir())
    assert not list(room.layout.staging.iterdir())
    assert room.layout.reserve.stat().st_size > 0, "kept back again"


async def test_the_last_failed_one_is_kept_to_be_looked_at(room: Room) -> None:
    await room.good("1.0")
    room.serving.before = RejectedError("it answers 500")
    bad, archive = room.release("2.0")
    with pytest.raises(RejectedError):
        await room.updates.apply(bad, sent(archive), room.steps, actor="test")
    await room.updates.prune()
    rows = {row.release: row for row in await room.updates.kept.listed()}
    assert rows[bad.release].failed == "it answers 500"


async def test_two_updates_at_once_are_refused(room: Room) -> None:
    first, archive = room.release("1.0")
    second, other = room.release("2.0")
    begun, go_on = anyio.Event(), anyio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        begun.set()
        await go_on.wait()
        yield archive

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:

            async def apply() -> None:
                await room.updates.apply(first, slowly(), room.steps, actor="test")

            group.start_soon(apply)
            await begun.wait()
            assert room.updates.is_busy
            with pytest.raises(RejectedError, match="another update is in hand"):
                await room.updates.apply(second, sent(other), room.steps, actor="test")
            go_on.set()
    assert room.updates.state.active == first.release


async def test_twenty_updates_leave_as_much_on_the_disk_as_five(tmp_path: Path) -> None:
    room = await Room(tmp_path / "app").open()
    for number in range(1, 21):
        await room.good(f"{number}.0")
    assert len(present(room.layout)) == 5
    assert await room.updates.kept.verify_history() == 20
    assert {path.name for path in room.root.iterdir()} == {
        *("releases", "staging", "incoming", "shared", ".trash", "current", "previous", "state.json", "state.json.1"),
        *("history.jsonl", "reserve.bin"),
    }


async def test_a_lost_state_is_read_from_the_copy_before_it(room: Room, tmp_path: Path) -> None:
    first = await room.good("1.0")
    room.layout.state.write_text("{")
    again = await Room(tmp_path / "app").open()
    assert "cannot read" in again.told[0]
    assert again.updates.state.active == first


async def test_the_image_s_own_takes_over_at_a_boot_and_it_is_told(room: Room) -> None:
    first = await room.good("1.0")
    await room.updates.use_image("the image is newer")
    assert await room.uses() == {BAKED: "active", first: "previous"}
    assert await room.outcomes() == ["apply ok", "use the image's ok"]
    second, archive = room.release("2.0")
    await room.updates.apply(second, sent(archive), room.steps, actor="test")
    await room.updates.use_image("the image is newer still")
    assert (room.updates.state.active, room.updates.state.trial) == (BAKED, False)
    assert (await room.outcomes())[2:] == ["apply rolled_back", "use the image's ok"]
