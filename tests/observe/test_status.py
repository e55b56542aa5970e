from __future__ import annotations

import json
from typing import Any

from supervisor.core import events
from supervisor.core.events import Event, GenerationState, Health, OverallState, ServiceState
from supervisor.observe.status import StatusFold


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _folded(*published: Event, **options: Any) -> dict[str, Any]:
    fold = StatusFold(clock=Clock(), **options)
    for event in published:
        fold.publish(event)
    document = fold.as_dict()
    json.dumps(document)
    return document


def _service(state: ServiceState, **values: Any) -> Event:
    return events.ServiceChanged(service="redis", state=state, **values)


def _generation(number: int, state: GenerationState, **values: Any) -> Event:
    return events.GenerationChanged(app="app", generation=number, state=state, **values)


def test_status_before_any_event_has_the_known_names() -> None:
    document = _folded(services=("postgres",), apps=("app",))
    assert document["state"] == "initializing"
    assert [(row["service"], row["state"], row["health"]) for row in document["services"]] == [
        ("postgres", "stopped", "none")
    ]
    assert [(row["app"], row["state"], row["generation"]) for row in document["apps"]] == [("app", "stopped", 0)]


def test_start_tells_who_we_are() -> None:
    document = _folded(events.SupervisorStarted(version="1.2", pid=7, mode="embedded", reaping="pid 1"))
    assert {key: document[key] for key in ("version", "pid", "mode", "reaping")} == {
        "version": "1.2",
        "pid": 7,
        "mode": "embedded",
        "reaping": "pid 1",
    }


def test_service_row_follows_its_life() -> None:
    clock = Clock()
    fold = StatusFold(clock=clock)
    fold.publish(_service(ServiceState.STARTING, pid=10))
    fold.publish(events.ServiceHealthChanged(service="redis", health=Health.HEALTHY))
    fold.publish(_service(ServiceState.RUNNING))
    clock.now += 5
    assert fold.as_dict()["services"] == [
        {
            "service": "redis",
            "state": "running",
            "health": "healthy",
            "reason": "",
            "pid": 10,
            "restarts": 0,
            "for_seconds": 5.0,
            "error": "",
        }
    ]


def test_restarts_count_what_came_back_by_itself() -> None:
    by_itself = [_service(state) for state in (ServiceState.RUNNING, ServiceState.BACKOFF, ServiceState.STARTING)]
    by_hand = [_service(state) for state in (ServiceState.STOPPING, ServiceState.STOPPED, ServiceState.STARTING)]
    document = _folded(_service(ServiceState.STARTING), *by_itself, *by_itself, *by_hand)
    assert document["services"][0]["restarts"] == 2


def test_dead_service_has_neither_pid_nor_health() -> None:
    row = _folded(
        _service(ServiceState.STARTING, pid=10),
        events.ServiceHealthChanged(service="redis", health=Health.HEALTHY),
        _service(ServiceState.BACKOFF, reason="exit code 1"),
    )["services"][0]
    assert (row["pid"], row["health"], row["reason"]) == (None, "none", "exit code 1")


def test_error_stays_until_the_service_runs_again() -> None:
    gone = [_service(ServiceState.FAILED), events.ServiceGaveUp(service="redis", error="gave up", report="long")]
    assert _folded(*gone)["services"][0]["error"] == "gave up"
    again = [_service(ServiceState.STARTING), _service(ServiceState.RUNNING)]
    assert _folded(*gone, *again)["services"][0]["error"] == ""


def test_app_row_shows_the_generation_users_reach() -> None:
    both = [
        _generation(1, GenerationState.SERVING, pid=11),
        _generation(2, GenerationState.STARTING, pid=12),
        _generation(2, GenerationState.READY),
    ]
    row = _folded(*both)["apps"][0]
    assert (row["generation"], row["state"], row["pid"]) == (1, "serving", 11)
    row = _folded(*both, _generation(1, GenerationState.WARM), _generation(2, GenerationState.SERVING))["apps"][0]
    assert (row["generation"], row["state"], row["pid"]) == (2, "serving", 12)


def test_generation_that_serves_was_proved_healthy() -> None:
    events_of_a_restart = [
        _generation(1, GenerationState.SERVING),
        events.AppHealthChanged(app="app", health=Health.UNHEALTHY, error="timeout"),
        _generation(1, GenerationState.STOPPED),
    ]
    assert _folded(*events_of_a_restart)["apps"][0]["health"] == "none"
    row = _folded(*events_of_a_restart, _generation(2, GenerationState.SERVING))["apps"][0]
    assert (row["health"], row["error"]) == ("healthy", "")


def test_failed_candidate_leaves_the_old_generation_shown() -> None:
    row = _folded(
        _generation(1, GenerationState.SERVING, pid=11),
        _generation(2, GenerationState.STARTING, pid=12),
        _generation(2, GenerationState.FAILED, reason="exit code 3"),
    )["apps"][0]
    assert (row["generation"], row["state"]) == (1, "serving")


def test_ended_generations_are_forgotten_but_the_newest() -> None:
    fold = StatusFold()
    for number in range(1, 50):
        fold.publish(_generation(number, GenerationState.SERVING))
        fold.publish(_generation(number, GenerationState.STOPPED))
    assert len(fold._apps["app"].generations) == 1
    assert fold.as_dict()["apps"][0]["generation"] == 49


def test_held_app_is_shown_until_it_serves_again() -> None:
    held = [_generation(1, GenerationState.FAILED), events.AppHeld(app="app", reason="5 crashes in 120 s")]
    row = _folded(*held)["apps"][0]
    assert (row["held"], row["error"], row["state"]) == (True, "5 crashes in 120 s", "failed")
    row = _folded(*held, _generation(2, GenerationState.SERVING))["apps"][0]
    assert (row["held"], row["error"]) == (False, "")


def test_app_restarts_and_route_are_part_of_its_row() -> None:
    row = _folded(
        _generation(1, GenerationState.SERVING),
        events.AppHealthChanged(app="app", health=Health.UNHEALTHY, error="timeout"),
        events.AppRestarting(app="app", reason="hung", restart_in_seconds=0.5),
        events.RouteChanged(app="app", health=Health.HEALTHY, url="http://localhost"),
    )["apps"][0]
    assert (row["restarts"], row["health"], row["error"]) == (1, "unhealthy", "timeout")
    assert row["route"] == {"health": "healthy", "url": "http://localhost"}


def test_phases_are_timed_while_they_run_and_after() -> None:
    clock = Clock()
    fold = StatusFold(clock=clock)
    fold.publish(events.PhaseStarted(phase="services"))
    clock.now += 2
    assert fold.as_dict()["boot"] == {
        "phases": [{"phase": "services", "elapsed_seconds": 2.0, "state": "running"}],
        "elapsed_seconds": 2.0,
    }
    fold.publish(events.PhaseFinished(phase="services", elapsed_seconds=2.1, detail="all"))
    fold.publish(events.BootFinished(elapsed_seconds=3.0, addresses={"app": "http://x"}))
    clock.now += 60
    document = fold.as_dict()
    assert document["boot"]["elapsed_seconds"] == 3.0
    assert document["boot"]["phases"][0] == {
        "phase": "services",
        "elapsed_seconds": 2.1,
        "state": "done",
        "detail": "all",
    }
    assert document["addresses"] == {"app": "http://x"}
    assert document["uptime_seconds"] == 62.0


def test_boot_that_ends_early_says_in_which_phase() -> None:
    began = [events.PhaseStarted(phase="services")]
    failed = _folded(*began, events.OverallChanged(state=OverallState.FAILED, reason="no postgres"))
    stopped = _folded(*began, events.OverallChanged(state=OverallState.STOPPING))
    assert (failed["state"], failed["reason"]) == ("failed", "no postgres")
    assert [document["boot"]["phases"][0]["state"] for document in (failed, stopped)] == ["failed", "interrupted"]


def test_reloads_are_counted_and_the_last_is_shown() -> None:
    document = _folded(
        events.ReloadFinished(source="signal HUP", result="ok", elapsed_seconds=1.0),
        events.ReloadFinished(source="file", result="rejected", reason="migration failed", elapsed_seconds=0.1),
    )
    assert document["reloads"] == {"ok": 1, "failed": 1}
    last = document["last_reload"]
    assert (last["source"], last["result"], last["reason"]) == ("file", "rejected", "migration failed")


def test_hooks_show_their_last_outcome() -> None:
    document = _folded(
        events.HookFinished(hook="cron", ok=False, detail="exit code 1"), events.HookFinished(hook="cron", ok=True)
    )
    assert [(hook["hook"], hook["ok"]) for hook in document["hooks"]] == [("cron", True)]


def test_failed_hook_is_shown_as_failed() -> None:
    document = _folded(events.HookFinished(hook="cron", ok=False, detail="exit code 1"))
    assert [(hook["ok"], hook["detail"]) for hook in document["hooks"]] == [(False, "exit code 1")]


def test_only_the_last_warnings_are_kept() -> None:
    document = _folded(*(events.Warned(message=str(number)) for number in range(30)))
    assert [warning["message"] for warning in document["warnings"]] == [str(number) for number in range(10, 30)]


def test_kept_files_and_leftovers_are_warnings_and_notices_are_not() -> None:
    document = _folded(
        events.Notice(message="fine"),
        events.FileKept(path="/x", difference="-a"),
        events.LeftoverStopped(process="redis", pid=9, signal="TERM"),
    )
    assert [warning["event"] for warning in document["warnings"]] == ["file.kept", "leftover.stopped"]


def test_orphans_are_asked_for_when_the_document_is_made() -> None:
    assert _folded(orphans_reaped=lambda: 12)["orphans_reaped"] == 12


def test_migrations_are_shown() -> None:
    document = _folded(
        events.MigrationsFinished(app="app", kind="sql", applied=("0001_a.sql",), already=3, elapsed_seconds=0.2)
    )
    assert document["migrations"]["applied"] == ("0001_a.sql",)
    assert document["migrations"]["already"] == 3
