"""The pure parts of the benchmark on an engine."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.bench import docker_figures as figures
from tests.bench.docker_engine import Boot, Mode, Ours
from tests.bench.rig import Entry

BEGAN = 1_000_000.0


def entry(after: float, event: str, **values: Any) -> Entry:
    """A line of the log."""
    return {"at": datetime.fromtimestamp(BEGAN + after, UTC).isoformat(), "event": event, **values}


def truth(after: float) -> dict[str, float]:
    """A line of the prober."""
    return {"began": BEGAN + after - 0.01, "ended": BEGAN + after, "last_bad": BEGAN + after - 0.02}


BOOT = Boot(
    began=BEGAN,
    entries=[
        entry(0.5, "supervisor.started"),
        entry(0.7, "boot.phase_started", phase="engine"),
        entry(1.7, "boot.phase_finished", phase="engine", elapsed_seconds=1.0),
        entry(3.05, "service.state", service="traefik", state="running"),
        entry(3.1, "service.state", service="redis", state="running"),
        entry(4.25, "service.state", service="postgres", state="running"),
        entry(4.5, "app.generation", state="starting"),
        entry(5.1, "app.generation", state="serving"),
        entry(5.2, "boot.finished"),
    ],
    truth={"postgres": truth(4.2), "redis": truth(3.0), "traefik": truth(3.0), "app": truth(5.0)},
    made=dict.fromkeys(("postgres", "redis", "traefik"), BEGAN + 2.0),
    started=dict.fromkeys(("postgres", "redis", "traefik"), BEGAN + 2.6),
    migrations_alone=0.1,
)


def test_critical_path_is_first_line_engine_slowest_service_migrations_and_app() -> None:
    assert figures.path(BOOT, since=BOOT.made) == pytest.approx(0.5 + 1.0 + 2.2 + 0.1 + 0.5)
    assert figures.path(BOOT, since=BOOT.started) == pytest.approx(0.5 + 1.0 + 1.6 + 0.1 + 0.5)


def test_critical_path_goes_through_a_proxy_that_is_slower_than_all_the_rest() -> None:
    slow = replace(BOOT, truth={**BOOT.truth, "traefik": truth(9.0)})

    assert figures.path(slow, since=slow.made) == pytest.approx(0.5 + 1.0 + 7.0)


def test_service_that_was_there_before_the_boot_costs_nothing() -> None:
    there = replace(BOOT, truth={**BOOT.truth, "postgres": truth(0.6)}, made={**BOOT.made, "postgres": BEGAN - 60})

    assert figures.to_truth(there, "postgres", since=there.made) == 0.0


def test_ratio_sets_the_whole_boot_against_the_path_and_its_allowance() -> None:
    assert figures.against_path(BOOT)[figures.RATIO] == pytest.approx(5.2 / (4.3 * 1.15 + 0.5))


def test_lateness_counts_from_the_truth_and_never_from_before_the_engine_was_fit() -> None:
    early = replace(BOOT, truth={**BOOT.truth, "redis": truth(1.0)})

    assert figures.lateness_ms(BOOT) == pytest.approx({"postgres": 50.0, "redis": 100.0}, abs=0.1)
    assert figures.lateness_ms(early)["redis"] == pytest.approx(1400.0, abs=0.1)


def test_ready_before_the_last_failed_question_is_too_early() -> None:
    assert figures.too_early(BOOT) == 0
    assert figures.too_early(replace(BOOT, truth={**BOOT.truth, "postgres": truth(4.5)})) == 1


def test_parts_tell_dockerd_only_where_it_is_ours() -> None:
    own = replace(BOOT, entries=[*BOOT.entries, entry(1.5, "service.state", service="dockerd", state="running")])

    assert not any("dockerd" in name for name in figures.parts(BOOT))
    assert figures.parts(own)["phase engine: until dockerd serves"] == pytest.approx(0.8)
    assert "dockerd ready" in figures.ready_after(own)


def test_parts_leave_out_what_was_made_or_started_before_the_boot() -> None:
    again = replace(BOOT, made=dict.fromkeys(BOOT.made, BEGAN - 60), started={**BOOT.started, "redis": BEGAN - 59})
    found = figures.parts(again)

    assert not any("made to" in name for name in found)
    assert "redis: container started to truth" not in found
    assert found["postgres: container started to truth"] == pytest.approx(1.6)


def test_log_without_the_wanted_line_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"boot\.finished"):
        figures.total(replace(BOOT, entries=BOOT.entries[:-1]))


def test_restarts_count_new_containers_new_runs_and_missing_ones() -> None:
    before = {"postgres": "a since 1", "redis": "b since 1", "traefik": "c since 1"}

    assert figures.restarts(before, dict(before)) == 0
    assert figures.restarts(before, {"postgres": "a since 2", "redis": "d since 1"}) == 3


def test_memory_is_of_pid_1_and_of_the_engine_by_name() -> None:
    found = figures.grouped_memory(
        [
            {"pid": 1, "name": "supervisor", "rss": 70.0, "pss": 60.0},
            {"pid": 9, "name": "containerd-shim", "rss": 10.0, "pss": 4.0},
            {"pid": 10, "name": "containerd-shim", "rss": 11.0, "pss": 5.0},
            {"pid": 11, "name": "python", "rss": 40.0, "pss": 40.0},
        ]
    )

    assert found == {"PID 1": (70.0, 60.0), "containerd-shim": (21.0, 9.0)}


def test_prober_asks_by_loopback_inside_and_by_name_on_the_hosts_engine() -> None:
    inside, outside = Ours().targets("thing", Mode.DIND), Ours().targets("thing", Mode.SOCKET)

    assert (inside["postgres"]["host"], inside["postgres"]["port"]) == ("127.0.0.1", "postgres")
    assert (outside["postgres"]["host"], outside["postgres"]["port"]) == ("thing-postgres", 5432)
