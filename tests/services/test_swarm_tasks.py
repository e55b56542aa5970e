"""What the list of a service's tasks means."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from supervisor.services.swarm.tasks import TaskState, TaskView, moment, view_tasks

START = datetime(2026, 1, 1, tzinfo=UTC)


def task(
    number: int, state: str, *, desired: str = "running", container: str = "", after: float | None = None, **status: Any
) -> dict[str, Any]:
    created = START + timedelta(seconds=number if after is None else after)
    container_status = {"ContainerID": container, "ExitCode": status.pop("ExitCode", 0)}
    return {
        "ID": f"task{number}",
        "CreatedAt": created.isoformat().replace("+00:00", "123Z") if created.microsecond else f"{created:%FT%T}.5Z",
        "DesiredState": desired,
        "Status": {"State": state, "ContainerStatus": container_status, **status},
    }


def test_no_task_is_none() -> None:
    assert view_tasks([]).state is TaskState.NONE


@pytest.mark.parametrize("state", ["new", "pending", "assigned", "preparing", "ready", "starting"])
def test_task_without_a_container_is_coming(state: str) -> None:
    assert view_tasks([task(1, state)]).state is TaskState.COMING


def test_task_whose_container_runs_is_up_before_its_first_health_check() -> None:
    assert view_tasks([task(1, "starting", container="c1")]) == TaskView(TaskState.UP, "task1", "c1", "starting")
    assert view_tasks([task(1, "running", container="c1")]).state is TaskState.UP


def test_newest_wanted_task_counts_whatever_the_order_of_the_list() -> None:
    tasks = [
        task(1, "failed", desired="shutdown", ExitCode=2, Err="task: non-zero exit (2)"),
        task(2, "failed", desired="shutdown", ExitCode=3, Err="task: non-zero exit (3)"),
        task(3, "running", container="c3"),
    ]
    for seed in range(6):
        random.Random(seed).shuffle(tasks)
        view = view_tasks(tasks)
        assert (view.task, view.container, view.exit_code) == ("task3", "c3", 3)
        assert view.error == "task: non-zero exit (3)"


def test_task_that_was_told_to_end_is_no_failure() -> None:
    tasks = [task(1, "shutdown", desired="shutdown", ExitCode=0), task(2, "running", container="c2")]
    assert view_tasks(tasks).error == ""


def test_failed_task_with_no_follower_yet_has_ended() -> None:
    view = view_tasks([task(1, "failed", desired="shutdown", ExitCode=1, Err="task: non-zero exit (1)")])
    assert (view.state, view.exit_code) == (TaskState.ENDED, 1)


def test_task_that_cannot_be_placed_is_blocked_with_the_reason() -> None:
    view = view_tasks([task(1, "pending", Err="no suitable node (scheduling constraints not satisfied on 1 node)")])
    assert "no suitable node" in view.blocked


@pytest.mark.parametrize(("after", "told"), [(2.0, False), (29.0, False), (31.0, True), (-5.0, True)])
def test_rejections_soon_after_the_engines_start_are_not_told(after: float, told: bool) -> None:
    rejected = task(1, "rejected", desired="shutdown", after=after, Err="network not found")
    view = view_tasks([rejected, task(2, "preparing", after=after + 5)], engine_started=START)
    assert bool(view.error) is told


@pytest.mark.parametrize("text", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1Z", "2026-01-01T00:00:00.123456789Z"])
def test_moments_of_any_precision_are_read(text: str) -> None:
    assert START <= moment(text) < START + timedelta(seconds=1)


def test_unreadable_moment_is_the_beginning_of_time() -> None:
    assert moment("yesterday") < START


def test_refusals_in_a_row_are_counted_but_for_those_that_pass() -> None:
    mount = "invalid mount config for type: bind source path does not exist"
    network = "No such network: network shop-network not found"
    ended = [task(number, "rejected", desired="shutdown", Err=mount) for number in (1, 2, 3)]
    waiting = task(9, "preparing")
    assert view_tasks([*ended, waiting]).refused == 3
    assert view_tasks([*ended, task(4, "rejected", desired="shutdown", Err=network), waiting]).refused == 3
    assert view_tasks([*ended, task(4, "failed", desired="shutdown", ExitCode=1), waiting]).refused == 0
    assert view_tasks([*ended, waiting], engine_started=START).refused == 0
    assert view_tasks([*ended, task(9, "running", container="c9")]).refused == 0
    assert mount in view_tasks([*ended, waiting]).error
