"""The level of the database's schema: it stays where it was brought to, whatever is pruned, killed or of the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from supervisor.core.errors import RejectedError
from supervisor.releases.contract import in_need
from supervisor.releases.journal import JournalFile, Mark
from supervisor.releases.model import BAKED
from supervisor.releases.recovery import present
from supervisor.releases.seal import MANIFEST_FILE
from supervisor.releases.state import Known, State, StateFile, parse, render
from supervisor.releases.tree import RECORDS
from supervisor.store.formats import NewerFormat
from tests.releases.rig import Killed, sent
from tests.releases.test_updates import Room

pytestmark = pytest.mark.anyio


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    return await Room(tmp_path / "app").open()


def at(level: int, lowest: int) -> dict[str, object]:
    return {"schema": {"level": level, "min_supported": lowest}}


def image_of(room: Room, **values: object) -> None:
    """The image was built from a release that says this."""
    admitted, _ = room.release("0.5", **values)
    place = room.layout.image_tree / RECORDS / MANIFEST_FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(admitted.data)


async def test_level_stays_when_the_release_that_brought_it_is_forgotten(tmp_path: Path) -> None:
    room = await Room(tmp_path / "app").open(keep=1)
    old = await room.good("1.0", **at(1, 1))
    room.live = {old}
    far = await room.good("2.0", **at(9, 8))
    for version in ("3.0", "4.0"):
        await room.good(version)
    assert far not in room.updates.state.releases
    again = await Room(tmp_path / "app").open(keep=1)
    again.live = {old}
    with pytest.raises(RejectedError, match="the schema is at level 9, which needs code of level 8 or above"):
        await again.back(old)


async def test_record_of_the_older_format_has_the_level_of_the_releases_that_it_knows() -> None:
    known = {"a-000000000001": Known(schema=(4, 2)), "b-000000000002": Known(schema=(3, 3))}
    values = json.loads(render(State(releases=known)))
    del values["schema"]
    assert parse(json.dumps({**values, "format": 1})) == State(releases=known, schema=(4, 2))
    assert parse(json.dumps({**values, "format": 1, "releases": {}})) == State()
    with pytest.raises(ValueError, match="lacks or has what it should not: 'schema'"):
        parse(json.dumps(values))
    with pytest.raises(ValueError, match="which is no number from 1 on"):
        parse(json.dumps({**values, "format": "2"}))


async def test_state_of_a_newer_version_is_refused_and_no_copy_of_before_is_used_instead(room: Room) -> None:
    await room.good("1.0")
    layout = room.layout
    layout.state_before.write_bytes(layout.state.read_bytes())
    newer = layout.state.read_text().replace('"format": 2', '"format": 3')
    layout.state.write_text(newer)
    with pytest.raises(NewerFormat) as caught:
        await Room(layout.root).open()
    assert str(caught.value) == (
        f"cannot use {str(layout.state)!r}: it was written by a newer version (format 3, this one knows 2); "
        f"update the supervisor, or restore the folder from a backup of before"
    )
    assert layout.state.read_text() == newer


async def test_key_of_another_version_is_refused_where_it_may_decide_what_is_started() -> None:
    values = json.loads(render(State()))
    with pytest.raises(ValueError, match=r"lacks or has what it should not: .*'paused'"):
        parse(json.dumps({**values, "paused": True}))


@pytest.mark.parametrize("mark", [Mark.SNAPSHOT, Mark.EXPANDED, Mark.TRYING])
async def test_kill_after_the_migrations_leaves_the_level_that_they_brought(room: Room, mark: Mark) -> None:
    old = await room.good("1.0", **at(1, 1))
    room.database.saves = True
    cut, archive = room.release("2.0", **at(2, 2))
    work, write = room.apply(cut), JournalFile.write

    def die(self: JournalFile, journal: object) -> None:
        write(self, journal)  # type: ignore[arg-type]
        if work.journal.mark is mark:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JournalFile, "write", die)
        with pytest.raises(Killed):
            await work.run(sent(archive))
    recovered = room.boot()
    assert (recovered.state.active, recovered.state.trial) == (old, False)
    assert recovered.state.schema == ((1, 1) if mark is Mark.SNAPSHOT else (2, 2))
    assert StateFile(room.layout).read()[0] == recovered.state
    again = await Room(room.root).open()
    assert (await again.outcomes())[-1] == "apply aborted"


async def test_image_that_says_no_level_is_of_an_unknown_one(room: Room) -> None:
    await room.good("1.0", **at(2, 2))
    with pytest.raises(RejectedError, match=r"baked cannot live on the database.* of an unknown level"):
        await room.back(BAKED)


async def test_image_of_a_release_is_of_that_one_s_level(room: Room) -> None:
    image_of(room, **at(2, 2))
    release = await room.good("1.0", **at(2, 2))
    assert await room.back(BAKED) == BAKED
    assert await room.back() == release
    assert BAKED not in in_need(room.updates.state, present(room.layout))
    await room.good("3.0", **at(4, 3))
    assert BAKED in in_need(room.updates.state, present(room.layout))
    with pytest.raises(RejectedError, match="needs code of level 3 or above, and that release is of level 2"):
        await room.back(BAKED)


async def test_image_that_serves_has_brought_the_database_to_its_level(room: Room) -> None:
    old = await room.good("1.0", **at(1, 1))
    image_of(room, **at(5, 5))
    assert await room.back(BAKED) == BAKED
    with pytest.raises(RejectedError, match="the schema is at level 5, which needs code of level 5"):
        await room.back(old)


async def test_image_that_does_not_serve_has_not(room: Room) -> None:
    old = await room.good("1.0", **at(1, 1))
    await room.good("2.0", **at(2, 1))
    image_of(room, **at(5, 5))
    assert await room.back(old) == old
    assert room.updates.state.schema == (2, 1)
