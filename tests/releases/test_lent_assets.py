"""Pages that were loaded from a release which was rolled back still find their hashed files on the older one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from supervisor.core.errors import RejectedError, RolledBackError
from supervisor.releases.model import BAKED
from supervisor.releases.seal import why_damaged
from tests.releases.rig import sent
from tests.releases.test_updates import Room

pytestmark = pytest.mark.anyio
KEPT = "static"


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    return await Room(tmp_path / "app").open()


def page(number: int) -> dict[str, Any]:
    """A release with a chunk of its own."""
    return {"keep_assets": (KEPT,), "files": {f"static/chunks-{number}/{number}.js": f"of {number}"}}


def chunks(room: Room, release: str) -> set[str]:
    tree = room.layout.tree(release)
    assert why_damaged(tree) == ""
    return {place.stem for place in (tree / KEPT).rglob("*.js")}


async def test_release_before_has_the_files_of_the_new_one_once_that_may_serve(room: Room) -> None:
    first = await room.good("1.0", **page(1))
    refused, archive = room.release("2.0", **page(2))
    room.serving.before = RejectedError("it answers 500")
    with pytest.raises(RejectedError, match="500"):
        await room.updates.apply(refused, sent(archive), room.steps, actor="test")
    assert chunks(room, first) == {"1"}, "nobody got a page of it"
    room.serving.before, room.serving.after = None, RolledBackError("it crashed in its bake")
    with pytest.raises(RolledBackError):
        await room.updates.apply(refused, sent(archive), room.steps, actor="test")
    room.serving.after = None
    assert chunks(room, first) == {"1", "2"}
    third = await room.good("3.0", **page(3))
    assert chunks(room, third) == {"1", "2", "3"}, "pages of the one that was rolled back are still there"


async def test_roll_back_brings_the_files_of_all_newer_ones_before_the_older_code_starts(room: Room) -> None:
    first = await room.good("1.0", **page(1))
    for number in (2, 3):
        await room.good(f"{number}.0", **page(number))
    assert chunks(room, first) == {"1", "2"}
    room.serving.before = RejectedError("it does not listen")
    with pytest.raises(RejectedError, match="does not listen"):
        await room.back(first)
    assert chunks(room, first) == {"1", "2", "3"}
    room.serving.before = None
    assert await room.back(first) == first
    assert await room.back(BAKED) == BAKED


async def test_what_was_lent_is_not_carried_on_and_a_change_of_the_own_files_is_still_seen(room: Room) -> None:
    first = await room.good("1.0", **page(1))
    second = await room.good("2.0", **page(2))
    assert await room.back() == first
    for place in room.layout.tree(second).rglob("2.js"):
        place.unlink()
    third = await room.good("3.0", **page(3))
    assert chunks(room, third) == {"1", "3"}
    (room.layout.tree(first) / "static/chunks-1/1.js").write_text("another")
    assert why_damaged(room.layout.tree(first)) != ""


async def test_release_that_keeps_no_files_and_one_that_cannot_be_read_are_left_alone(room: Room) -> None:
    first = await room.good("1.0", files={"static/1.js": ""})
    second = await room.good("2.0", **page(2))
    assert chunks(room, first) == {"1"}
    (room.layout.records(second) / "manifest.json").write_text("{")
    await room.good("3.0", **page(3))
    assert chunks(room, second) == {"1", "2"}
