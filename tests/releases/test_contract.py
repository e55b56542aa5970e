"""Contract migrations: refused while anything may need the older shape of the database, written down when applied."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from supervisor.core.errors import MigrationError, RejectedError, StoppingError
from supervisor.releases.contract import in_need
from supervisor.releases.journal import JournalFile
from supervisor.releases.model import BAKED
from supervisor.releases.state import Known, State, given_up
from tests.releases.rig import sent
from tests.releases.test_updates import Room

pytestmark = pytest.mark.anyio


@dataclass
class Contracts:
    """`pending` are due until they are applied; None: there is no such kind."""

    pending: tuple[str, ...] | None = ("2_drop.sql",)
    fails: Exception | None = None
    applied: list[str] = field(default_factory=list)

    async def due(self) -> tuple[str, ...] | None:
        return self.pending

    async def apply(self) -> tuple[str, ...]:
        if self.fails is not None:
            raise self.fails
        names, self.pending = self.pending or (), ()
        self.applied += names
        return names


@pytest.fixture
async def room(tmp_path: Path) -> Room:
    return await Room(tmp_path / "app").open()


async def asked(room: Room, contracts: Contracts, *, give_up: bool = False) -> tuple[str, ...]:
    return await room.updates.contract(contracts, give_up=give_up, actor="test")


def at_level(level: int) -> dict[str, object]:
    return {"schema": {"level": level, "min_supported": max(0, level - 1)}}


def test_code_of_a_lower_level_and_code_that_says_none_is_in_need() -> None:
    known = {
        "a-000000000001": Known(confirmed=True, sequence=1, schema=(0, 0)),
        "b-000000000002": Known(confirmed=True, sequence=2, schema=(11, 10)),
        "c-000000000003": Known(confirmed=True, sequence=3, schema=(12, 11)),
        "d-000000000004": Known(confirmed=True, sequence=4, schema=(12, 11)),
        "e-000000000005": Known(failed="it crashed", sequence=5, schema=(11, 11)),
    }
    state = State(active="d-000000000004", good="d-000000000004", previous="c-000000000003", releases=known)
    assert in_need(state, known) == ["b-000000000002", "a-000000000001", BAKED]
    assert in_need(given_up(state, [BAKED, "a-000000000001"], "why"), known) == ["b-000000000002"]
    of_no_level = replace(state, active="a-000000000001")
    assert len(in_need(of_no_level, known)) == 4, "where it is not said, all that is kept may be in need"
    on_the_image = State(releases=known)
    assert in_need(on_the_image, known) == sorted(set(known) - {"e-000000000005"}, reverse=True)


async def test_on_trial_it_is_refused(room: Room) -> None:
    admitted, archive = room.release("1.0")
    await room.updates.apply(admitted, sent(archive), room.steps, actor="test")
    contracts = Contracts()
    with pytest.raises(RejectedError, match=f"{admitted.release} is still on trial"):
        await asked(room, contracts, give_up=True)
    assert contracts.applied == []


async def test_a_way_back_that_needs_the_older_shape_refuses_it_and_is_named(room: Room) -> None:
    first, second = await room.good("1.0", **at_level(11)), await room.good("2.0", **at_level(12))
    contracts = Contracts()
    with pytest.raises(RejectedError, match=f"may go to {first}, {BAKED}.*release prune.*--give-up-way-back"):
        await asked(room, contracts)
    assert contracts.applied == []
    assert await room.outcomes() == ["apply ok", "apply ok"]
    assert await room.back() == first, "nothing was given up"
    assert second in await room.uses()


async def test_what_is_given_up_is_no_way_back_any_more_and_cannot_come_back(room: Room) -> None:
    admitted, archive = room.release("1.0", **at_level(11))
    first = await room.good("1.0", **at_level(11))
    await room.good("2.0", **at_level(12))
    contracts = Contracts()
    assert await asked(room, contracts, give_up=True) == ("2_drop.sql",)
    assert contracts.applied == ["2_drop.sql"]
    assert await room.outcomes() == ["apply ok", "apply ok", "contract ok"]
    line = (await room.updates.kept.history())[-1]
    assert line.reason == f"applied 2_drop.sql; given up: {first}, {BAKED}"
    for target in (first, BAKED):
        with pytest.raises(RejectedError, match="took away what its code may need"):
            await room.back(target)
    with pytest.raises(RejectedError, match="there is no way back at all"):
        await room.back()
    with pytest.raises(RejectedError, match="build it again for the database as it is now"):
        await room.updates.apply(admitted, sent(archive), room.steps, actor="test")
    assert not room.layout.previous.is_symlink()


async def test_code_of_the_same_level_does_not_stand_in_its_way(room: Room) -> None:
    first = await room.good("1.0", **at_level(12))
    await room.good("2.0", **at_level(12))
    assert await asked(room, Contracts(pending=("a",)), give_up=True) == ("a",)  # gives up the image's own
    assert await asked(room, Contracts(pending=("b",))) == ("b",)
    assert await room.back() == first


async def test_nothing_due_gives_nothing_up(room: Room) -> None:
    first = await room.good("1.0", **at_level(11))
    await room.good("2.0", **at_level(12))
    assert await asked(room, Contracts(pending=()), give_up=True) == ()
    assert await room.outcomes() == ["apply ok", "apply ok"]
    assert await room.back() == first


async def test_a_kind_that_has_none_says_why(room: Room) -> None:
    with pytest.raises(MigrationError, match="no such kind"):
        await asked(room, Contracts(pending=None, fails=MigrationError("no such kind")))
    assert await room.outcomes() == []


async def test_one_that_fails_is_told_and_written_down(room: Room) -> None:
    await room.good("1.0")
    with pytest.raises(RejectedError, match="contract migrations are not applied: relation does not exist"):
        await asked(room, Contracts(fails=MigrationError("relation does not exist")), give_up=True)
    assert await room.outcomes() == ["apply ok", "contract rejected"]
    assert JournalFile(room.layout).read() is None


async def test_one_that_is_cut_short_is_written_down_at_the_next_start(room: Room) -> None:
    release = await room.good("1.0")
    with pytest.raises(StoppingError):
        await asked(room, Contracts(fails=StoppingError("the supervisor is stopping")), give_up=True)
    again = await Room(room.root).open()
    assert await again.outcomes() == ["apply ok", "contract aborted"]
    assert any("contract migrations were cut short" in told for told in again.told)
    assert (await again.uses())[release] == "active"
    with pytest.raises(RejectedError, match="there is no way back"):
        await again.back(BAKED)


async def test_another_image_is_a_way_back_again(room: Room) -> None:
    await room.good("1.0")
    await asked(room, Contracts(), give_up=True)
    await room.updates.use_image("it is newer")
    await room.good("2.0")
    assert await room.back(BAKED) == BAKED
