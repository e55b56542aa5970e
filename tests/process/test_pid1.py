"""The reaper as PID 1 of real PID namespaces, each guard beside what happens without it."""

from __future__ import annotations

import json

import pytest

from tests.process.namespaces import program, run_as_pid1

pytestmark = pytest.mark.namespaces


def storm(guard: str, *, children: int = 0, orphans: int = 0) -> dict[str, int]:
    run = run_as_pid1(program("storm", guard, children, orphans), limit_seconds=300)
    assert run.returncode == 0, run.stderr
    outcome: dict[str, int] = json.loads(run.stdout)
    return outcome


def test_orphans_are_reaped(soak: bool) -> None:
    orphans = 10_000 if soak else 1_000
    assert storm("reaper", orphans=orphans) == {"wrong": 0, "zombies": 0, "orphans": orphans}


def test_orphans_stay_zombies_without_a_reaper() -> None:
    assert storm("none", orphans=50)["zombies"] == 50


def test_exit_codes_are_right_amid_a_storm_of_orphans() -> None:
    assert storm("reaper", children=600, orphans=600) == {"wrong": 0, "zombies": 0, "orphans": 600}


def test_exit_codes_are_lost_when_popen_objects_are_dropped() -> None:
    assert storm("dropped", children=100)["wrong"] > 50
