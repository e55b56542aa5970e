"""Two things at a time: the outcome says what is true, and whoever can serve does."""

from __future__ import annotations

from unittest.mock import ANY

import pytest

from tests.e2e.harness import answers, request, wait_until
from tests.e2e.reload.clients import SlowRequest
from tests.e2e.reload.rig import App


def test_warm_and_new_generation_die_in_the_bake_and_the_outcome_names_the_one_that_serves(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="5", SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    app.release()
    with app.reloading() as outcome:
        app.wait_state(2, "serving")
        app.kill(1)
        app.wait_gone(app.pid_of(1))
        app.kill(2)
    assert "generation 1 serves again" not in outcome["reason"]
    assert outcome["detail"]["apps"]["app"]["generation"] == 3
    assert request(app.supervisor.port, "/echo") == (200, "2")


def test_bake_that_ends_while_nobody_serves_is_not_told_as_good(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1", SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    app.release(boot_seconds=0.2)
    with app.reloading() as outcome:
        app.wait_state(2, "serving")
        app.release(boot_seconds=2.5)
        app.kill(1)
        app.wait_gone(app.pid_of(1))
        app.kill(2)
    assert outcome["result"] != "ok", outcome
    wait_until("another one serves", lambda: answers(app.supervisor.port, "/echo") == 200, limit=15)


def test_haproxy_that_does_not_answer_rejects_the_reload_and_the_old_generation_serves_on(app: App) -> None:
    app.boot()
    app.release()
    with app.reloading() as outcome:
        app.wait_state(2, "starting")
        with app.frozen_haproxy():
            wait_until("the reload is over", lambda: bool(outcome), limit=20)
    assert outcome["result"] == "rejected", outcome
    app.wait_gone(app.pid_of(2))
    assert {request(app.supervisor.port, "/echo") for _ in range(20)} == {(200, "1")}
    assert app.reload()["result"] == "ok"
    assert {request(app.supervisor.port, "/echo") for _ in range(20)} == {(200, "2")}


@pytest.mark.parametrize("generation", [1, 2])
def test_generation_killed_within_the_switch_is_not_the_one_that_serves(app: App, generation: int) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1", SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    with SlowRequest(app.url, 2) as slow:
        version = app.release(boot_seconds=0.3)
        with app.reloading() as outcome:
            app.wait_state(2, "starting")
            with app.frozen_haproxy():
                app.wait_state(2, "ready")
                killed = app.pid_of(generation)
                app.kill(generation)
                app.wait_gone(killed)
        # Who dies before the switch began is rejected, who dies within it loses the requests again.
        assert outcome["result"] in (("ok",) if generation == 1 else ("rejected", "rolled_back")), outcome
        wait_until("it serves", lambda: app.supervisor.status()["apps"][0]["state"] == "serving")
        serves = str(version if generation == 1 else 1)
        assert {request(app.supervisor.port, "/echo") for _ in range(20)} == {(200, serves)}
        assert slow.answer() == ((502, ANY) if generation == 1 else (200, b"patience"))


@pytest.mark.parametrize("state", ["crashed", "held"])
def test_reload_mends_an_app_that_does_not_run(app: App, state: str) -> None:
    base = "5" if state == "crashed" else "0.02"
    app.boot(SUPERVISOR_ON_APP_FAILURE="hold", SUPERVISOR_RESTART_BASE_SECONDS=base, SUPERVISOR_RESTART_LIMIT="2")
    app.release(exit=4)
    app.kill(1)
    app.supervisor.wait_event("app.restarting" if state == "crashed" else "app.held")
    app.release()
    assert app.reload()["result"] == "ok"
    assert request(app.supervisor.port, "/echo") == (200, str(app.version))
    assert app.supervisor.status()["state"] == "running"


def test_broken_release_beside_a_crash_of_the_serving_one_is_rejected_and_the_app_comes_back(app: App) -> None:
    app.boot(SUPERVISOR_RESTART_BASE_SECONDS="0.05", SUPERVISOR_APP_START_SECONDS="3")
    version = app.release(listen="never")
    with app.reloading() as outcome:
        app.wait_begun(version)
        app.release()
        app.kill(1)
    assert outcome["result"] == "rejected"
    wait_until("it serves", lambda: answers(app.supervisor.port, "/echo") == 200, limit=15)


def test_stop_by_hand_in_a_reload_comes_after_it(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1")
    app.release()
    with app.reloading() as outcome:
        app.wait_state(2, "serving")
        assert app.supervisor.cli("stop", "app").returncode == 0
    assert outcome["result"] == "ok"
    assert answers(app.supervisor.port, "/echo") == 503
    assert app.supervisor.stop() == 0
