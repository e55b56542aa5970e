"""Power lost at any moment: whatever the disk kept of what was not synced, the next start finds the old release or the
new, whole.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from supervisor.releases.history import History
from supervisor.releases.recovery import present
from supervisor.releases.seal import why_damaged
from supervisor.releases.state import StateFile
from supervisor.releases.updates import Updates
from tests.releases.power import Cut, Found, recorded, unsynced
from tests.releases.rig import NOW, Place, sent
from tests.releases.test_kills import ACTS, Act, Killable, apply_refused, check, goes_on, outcomes

pytestmark = pytest.mark.anyio
EVERY, DISKS = 5, 5


def disks(cuts: list[Cut], *, every: int, count: int, seed: str) -> list[Found]:
    chance = random.Random(seed)
    return [found for cut in cuts[::every] for found in cut.disks(chance, count)]


def check_kept(place: Place) -> None:
    """What lies there to be rolled back to is whole."""
    for release in present(place.layout):
        assert why_damaged(place.layout.tree(release)) == "", release


@pytest.mark.parametrize("act", ACTS)
async def test_a_power_loss_anywhere_leaves_the_old_release_or_the_new_one(
    act: Act, tmp_path: Path, soak: bool
) -> None:
    place = Killable(tmp_path / "app")
    with unsynced():
        updates = await place.begin()
        with recorded(place.root) as recorder:
            await act(place, updates)
        found = set()
        assert len(recorder.cuts) > 40
        left = disks(recorder.cuts, every=1 if soak else EVERY, count=12 if soak else DISKS, seed=act.__name__)
        for number, disk in enumerate(left):
            disk.write(place.root)
            place = Killable(tmp_path / "app")
            place.boot()
            found.add(check(place, *outcomes(act, place)))
            check_kept(place)
            if number % 7 == 0:
                await goes_on(place)
    assert found == set(outcomes(act, place)) or act is apply_refused


def told(place: Place) -> tuple[str, str, bool, list[str]]:
    """What people were told: active, good, on trial, and how each update ended."""
    state, _ = StateFile(place.layout).read()
    return state.active, state.good, state.trial, [line.outcome for line in History(place.layout.history).read()]


@pytest.mark.parametrize("act", ACTS)
async def test_what_was_reported_as_done_is_still_done_after_a_power_loss(act: Act, tmp_path: Path) -> None:
    place = Killable(tmp_path / "app")
    with unsynced():
        updates = await place.begin()
        with recorded(place.root) as recorder:
            await act(place, updates)
        done = told(place)
        for disk in recorder.cuts[-1].disks(random.Random(act.__name__), 20):
            disk.write(place.root)
            place.boot()
            assert told(place) == done


async def test_a_power_loss_while_old_releases_are_deleted_leaves_each_whole_or_gone(
    tmp_path: Path, soak: bool
) -> None:
    place = Place(tmp_path / "app")
    updates = Updates(place.layout, now=lambda: NOW, live=lambda: (), keep=1)
    with unsynced():
        await updates.open()
        for number in range(1, 4):
            admitted, archive = place.release(f"{number}.0")
            await updates.apply(admitted, sent(archive), place.steps, actor="test")
            with recorded(place.root) as recorder:
                await updates.confirm()
        assert len(present(place.layout)) == 2
        for disk in disks(recorder.cuts, every=1 if soak else 3, count=12 if soak else DISKS, seed="deleted"):
            disk.write(place.root)
            place.boot()
            check(place, admitted.release)
            check_kept(place)


def test_a_disk_after_a_power_loss_has_what_was_synced_and_of_the_rest_anything(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    with recorded(tmp_path) as recorder:
        descriptor = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"data")
        os.rename(tmp_path / "there", tmp_path / "moved")
        os.fsync(descriptor)
        os.close(descriptor)
    found = {
        tuple(sorted((name, disk.data[node]) for (_, name), node in disk.names.items()))
        for cut in recorder.cuts[-1:]
        for disk in cut.disks(random.Random(1), 30)
    }
    assert found == {
        (("there", b"old"),),
        (("moved", b"old"),),
        (("new", b"data"), ("there", b"old")),
        (("moved", b"old"), ("new", b"data")),
    }
    unsynced_data = {disk.data[node] for disk in recorder.cuts[2].disks(random.Random(1), 30) for node in disk.data}
    assert unsynced_data == {b"old", b"", b"da", bytes(4), b"data"}
