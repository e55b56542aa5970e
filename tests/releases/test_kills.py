"""Killed after every operation on the disk: the next start finds the old release or the new, and never half of one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.core.errors import RejectedError, RolledBackError
from supervisor.releases.history import History
from supervisor.releases.journal import Action, JournalFile
from supervisor.releases.model import BAKED
from supervisor.releases.recovery import empty_trash, present
from supervisor.releases.seal import why_damaged
from supervisor.releases.snapshots import stale
from supervisor.releases.state import StateFile, link_targets
from supervisor.releases.updates import Updates
from tests.releases.rig import NOW, Killed, Place, disk, sent
from tests.releases.test_contract import Contracts

pytestmark = pytest.mark.anyio
EVERY = 5


def check(place: Place, *allowed: str) -> str:
    """Everything agrees; gives what is active."""
    state, told = StateFile(place.layout).read()
    assert told == ""
    assert state.active in allowed
    for name, release in link_targets(state).items():
        link = place.root / name
        assert link.is_symlink() == bool(release)
        if release:
            assert link.resolve() == place.layout.tree(release).resolve()
    for release in (state.active, state.good):
        if release != BAKED:
            assert why_damaged(place.layout.tree(release)) == ""
    assert not list(place.layout.staging.iterdir()) if place.layout.staging.exists() else True
    assert (JournalFile(place.layout).read() is not None) == state.trial
    assert not [path for path in place.root.iterdir() if path.name.endswith(".tmp")]
    assert stale(place.layout, {*state.releases, *present(place.layout)}) == [], (
        "each snapshot is proved, and its release is known"
    )
    history = History(place.layout.history)
    history.verify()
    lines = history.read()
    if state.active == BAKED:
        assert lines[-1].action == Action.IMAGE, "no change without its line"
    ended = [line.transaction for line in lines]
    assert len(ended) == len(set(ended)), "each transaction has one end"
    return state.active


class Killable(Place):
    """Made anew for each kill, with a good release and a newer one that is to be applied."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.old, self._old_archive = self.release("1.0")
        self.new, self.new_archive = self.release("2.0", shared=["uploads"])

    async def updates(self) -> Updates:
        updates = Updates(self.layout, now=lambda: NOW, live=lambda: ())
        await updates.open()
        return updates

    async def begin(self) -> Updates:
        updates = await self.updates()
        await updates.apply(self.old, sent(self._old_archive), self.steps, actor="test")
        await updates.confirm()
        return updates


Act = Callable[[Killable, Updates], Awaitable[object]]


async def apply(place: Killable, updates: Updates) -> None:
    await updates.apply(place.new, sent(place.new_archive), place.steps, actor="test")


async def apply_and_confirm(place: Killable, updates: Updates) -> None:
    await apply(place, updates)
    await updates.confirm()


async def apply_refused(place: Killable, updates: Updates) -> None:
    place.serving.before = RejectedError("it answers 500")
    with pytest.raises(RejectedError):
        await apply(place, updates)


async def apply_rolled_back(place: Killable, updates: Updates) -> None:
    place.serving.after = RolledBackError("it answers worse")
    with pytest.raises(RolledBackError):
        await apply(place, updates)


async def apply_and_roll_back(place: Killable, updates: Updates) -> None:
    await apply_and_confirm(place, updates)
    await updates.roll_back("", place.steps, actor="test")


async def apply_and_give_up(place: Killable, updates: Updates) -> None:
    await apply(place, updates)
    await updates.give_up_trial("it crashed three times")


async def apply_and_roll_back_the_trial(place: Killable, updates: Updates) -> None:
    await apply(place, updates)
    await updates.roll_back("", place.steps, actor="test")


async def apply_with_snapshot(place: Killable, updates: Updates) -> None:
    place.database.saves = True
    await apply(place, updates)


async def use_image(place: Killable, updates: Updates) -> None:
    await apply_and_confirm(place, updates)
    await updates.use_image("the image's app is newer")


async def use_image_on_trial(place: Killable, updates: Updates) -> None:
    await apply(place, updates)
    await updates.use_image("the image's app is newer")


async def contract(place: Killable, updates: Updates) -> None:
    await apply_and_confirm(place, updates)
    await updates.contract(Contracts(), give_up=True, actor="test")


ACTS: list[Act] = [
    apply,
    apply_with_snapshot,
    contract,
    use_image,
    use_image_on_trial,
    apply_and_confirm,
    apply_refused,
    apply_rolled_back,
    apply_and_roll_back,
    apply_and_give_up,
    apply_and_roll_back_the_trial,
]


def outcomes(act: Act, place: Killable) -> list[str]:
    """What may be active after it was cut short."""
    return [place.old.release, place.new.release, *([BAKED] if act in (use_image, use_image_on_trial) else [])]


@pytest.mark.parametrize("act", ACTS)
async def test_a_kill_anywhere_leaves_the_old_release_or_the_new_one(act: Act, tmp_path: Path, soak: bool) -> None:
    whole = Killable(tmp_path / "whole" / "app")
    updates = await whole.begin()
    with disk() as counted:
        await act(whole, updates)
    assert counted.done > 40
    allowed = outcomes(act, whole)
    found = set()
    for last in range(0, counted.done, 1 if soak else EVERY):
        place = Killable(tmp_path / str(last) / "app")
        updates = await place.begin()
        with disk(last), pytest.raises((Killed, BaseExceptionGroup)):
            await act(place, updates)
        place.boot()
        found.add(check(place, *allowed))
        await goes_on(place)
    assert found == set(allowed) or act is apply_refused


async def goes_on(place: Killable) -> None:
    """The next update works, whatever was found."""
    place.serving.before = place.serving.after = None
    updates = await place.updates()
    if updates.state.trial:
        await updates.confirm()
    if updates.state.active != place.new.release:
        await apply_and_confirm(place, updates)
    assert check(place, place.new.release)
    assert updates.state.good == place.new.release


@pytest.mark.parametrize("act", [apply, apply_rolled_back])
async def test_a_kill_within_the_recovery_is_recovered_from(act: Act, tmp_path: Path, soak: bool) -> None:
    for first in range(0, 200, 7 if soak else 40):
        for last in range(0, 30, 1 if soak else 6):
            place = Killable(tmp_path / f"{first}-{last}" / "app")
            updates = await place.begin()
            with disk(first):
                try:
                    await act(place, updates)
                except (Killed, BaseExceptionGroup):
                    pass
                else:
                    return  # there are no more operations
            with disk(last), suppress(Killed):
                place.boot()
            place.boot()
            check(place, place.old.release, place.new.release)


async def test_a_trial_that_is_never_confirmed_runs_out_of_starts(tmp_path: Path) -> None:
    place = Killable(tmp_path / "app")
    updates = await place.begin()
    await apply(place, updates)
    for _ in range(2):
        assert place.boot().state.active == place.new.release
    recovered = place.boot()
    assert recovered.state.active == place.old.release
    assert "rolled back" in recovered.told[0]
    assert check(place, place.old.release)
    assert [line.outcome for line in History(place.layout.history).read()] == ["ok", "rolled_back"]


async def test_a_tree_that_is_gone_is_not_started(tmp_path: Path) -> None:
    place = Killable(tmp_path / "app")
    updates = await place.begin()
    await apply_and_confirm(place, updates)
    place.layout.tree(place.new.release).rename(tmp_path / "lost")
    recovered = place.boot()
    assert recovered.state.active == place.old.release
    assert "is gone" in recovered.told[0]
    place.layout.tree(place.old.release).rename(tmp_path / "lost too")
    assert place.boot().state.active == BAKED


async def test_what_nobody_knows_is_deleted(tmp_path: Path) -> None:
    place = Killable(tmp_path / "app")
    await place.begin()
    (place.layout.kept / "9.9-aaaaaaaaaaaa").mkdir()
    (place.layout.incoming / "put-here-by-hand.tar.zst").write_text("x")
    place.boot()
    assert present(place.layout) == {place.old.release}
    assert [path.name for path in place.layout.incoming.iterdir()] == ["put-here-by-hand.tar.zst"]
    empty_trash(place.layout)
    assert not list(place.layout.trash.iterdir())
