"""The checked state."""

from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.machine import IllegalMoveError, Machine


class Light(StrEnum):
    """States of a traffic light."""

    RED = "red"
    GREEN = "green"
    BROKEN = "broken"


MOVES = {
    Light.RED: frozenset({Light.GREEN, Light.BROKEN}),
    Light.GREEN: frozenset({Light.RED, Light.BROKEN}),
    Light.BROKEN: frozenset[Light](),
}


def test_a_move_the_table_has_changes_state_reason_and_time() -> None:
    machine = Machine(Light.RED, MOVES)
    before = machine.since
    machine.to(Light.GREEN, "its turn")
    assert (machine.state, machine.reason) == (Light.GREEN, "its turn")
    assert machine.since >= before


def test_a_move_the_table_lacks_is_refused_and_changes_nothing() -> None:
    told: list[Light] = []
    machine = Machine(Light.RED, MOVES, lambda old, new, reason: told.append(new))
    machine.to(Light.BROKEN, "lightning")
    with pytest.raises(IllegalMoveError, match=r"no move from .*broken.* to .*red.* \(mended\)"):
        machine.to(Light.RED, "mended")
    assert (machine.state, machine.reason, told) == (Light.BROKEN, "lightning", [Light.BROKEN])


def test_each_move_is_told_once_with_both_states_and_the_reason() -> None:
    told: list[tuple[Light, Light, str]] = []
    machine = Machine(Light.RED, MOVES, lambda old, new, reason: told.append((old, new, reason)))
    machine.to(Light.GREEN, "go")
    machine.to(Light.GREEN, "again")
    machine.to(Light.RED)
    assert told == [(Light.RED, Light.GREEN, "go"), (Light.GREEN, Light.RED, "")]


def test_who_is_told_of_a_move_finds_the_state_written() -> None:
    seen: list[Light] = []
    machine: Machine[Light] = Machine(Light.RED, MOVES, lambda old, new, reason: seen.append(machine.state))
    machine.to(Light.GREEN)
    assert seen == [Light.GREEN]


@given(st.lists(st.sampled_from(Light)))
def test_whatever_is_asked_only_moves_of_the_table_happen(wishes: list[Light]) -> None:
    steps: list[tuple[Light, Light]] = []
    machine = Machine(Light.RED, MOVES, lambda old, new, reason: steps.append((old, new)))
    for wish in wishes:
        allowed = machine.can(wish)
        try:
            machine.to(wish)
        except IllegalMoveError:
            assert not allowed
        else:
            assert allowed
            assert machine.state is wish
    assert all(new in MOVES[old] for old, new in steps)
