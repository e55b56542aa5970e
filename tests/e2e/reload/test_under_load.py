"""No request fails: over reloads, over a crash, over the end of HAProxy itself."""

from __future__ import annotations

import os
import signal

import pytest

from tests.e2e.harness import is_running, left_behind, wait_until
from tests.e2e.reload.rig import LOST, MOST_LOST, App, BothLoads, answered, failures, longest_ms


def test_five_reloads_under_load_lose_no_request(app: App) -> None:
    app.boot()
    with BothLoads(app, rate=250) as load:
        for _ in range(5):
            version = app.release()
            outcome = app.reload()
            assert outcome["result"] == "ok", outcome
            load.version_at(version)
        reports = load.stop()
    assert failures(reports) == {}
    assert answered(reports) > 2000
    assert all(set(report.after.versions) == {1, 2, 3, 4, 5, 6} for report in reports)
    told = outcome["detail"]["apps"]["app"]
    assert (told["generation_before"], told["generation"]) == (5, 6)
    assert told["most_waiting"] <= 5, "none waits; one that is between HAProxy's halves may count"
    assert {"gate", "switch", "bake"} <= set(outcome["phases"])


def test_crash_under_load_refuses_nobody_and_the_wait_is_bounded(app: App) -> None:
    app.boot(SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    with BothLoads(app) as load:
        for generation in (1, 2):
            app.release()
            app.kill(generation)
            load.version_at(app.version)
        reports = load.stop()
    # What the killed process had in hand is lost, and only that.
    lost = failures(reports)
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST
    assert longest_ms(reports) < 5000


@pytest.mark.parametrize("state", ["idle", "gate", "bake"])
def test_haproxy_killed_under_load_refuses_nobody(app: App, state: str) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1")
    with BothLoads(app) as load:
        first = app.haproxy_pid()
        version = app.release(boot_seconds=0.7)
        if state == "idle":
            kill_haproxy(app)
            outcome = app.reload()
        else:
            with app.reloading() as outcome:
                app.wait_state(2, "starting" if state == "gate" else "serving")
                kill_haproxy(app)
        assert outcome["result"] == "ok", outcome
        load.version_at(version)
        reports = load.stop()
    assert app.haproxy_pid() != first
    lost = failures(reports)
    assert set(lost) <= {"reset", "closed before the answer"}, "in flight, and idle ones used before their end is seen"
    assert sum(lost.values()) <= MOST_LOST
    assert longest_ms(reports) < 5000


def kill_haproxy(app: App) -> None:
    """Until another one is there."""
    first = app.haproxy_pid()
    os.kill(first, signal.SIGKILL)
    wait_until("another haproxy", lambda: app.haproxy_pid() != first, limit=15)


@pytest.mark.parametrize("state", ["gate", "bake"])
def test_serving_generation_killed_during_a_reload_refuses_nobody(app: App, state: str) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1.5", SUPERVISOR_RESTART_BASE_SECONDS="0.05")
    with BothLoads(app) as load:
        version = app.release(boot_seconds=1 if state == "gate" else 0.2)
        with app.reloading() as outcome:
            if state == "gate":
                app.wait_state(2, "starting")
                app.kill(1)
            else:
                app.wait_state(2, "serving")
                load.version_at(version)
                app.kill(2)
        wait_until("it serves", lambda: app.supervisor.status()["apps"][0]["state"] == "serving")
        load.version_at(version)
        reports = load.stop()
    lost = failures(reports, may_go_back=state == "bake")
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST
    assert longest_ms(reports) < 5000
    assert outcome["result"] == ("ok" if state == "gate" else "rolled_back")
    if state == "bake":
        assert "killed by SIGKILL" in outcome["reason"]
        assert "generation 1 serves again" in outcome["reason"]


def test_hung_app_is_replaced_beside_the_hung_one(app: App) -> None:
    app.boot(
        SUPERVISOR_APP_HEALTH_INTERVAL_SECONDS="0.2",
        SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS="0.3",
        SUPERVISOR_APP_HEALTH_RETRIES="2",
        SUPERVISOR_RESTART_BASE_SECONDS="0.05",
    )
    app.release(hang_after=1.5)
    assert app.reload()["result"] == "ok"
    app.release()
    with BothLoads(app) as load:
        load.version_at(app.version)
        reports = load.stop()
    assert failures(reports) == {}
    assert app.supervisor.events("app.restarting")[0]["reason"].startswith("hung")
    assert longest_ms(reports) < 1000, "the hung one answers all but the probe until the other one is up"


def test_generations_that_are_replaced_are_gone_with_all_they_started(app: App) -> None:
    app.release(children=3, term="ignore")
    app.boot(SUPERVISOR_APP_STOP_SECONDS="0.5")
    supervisor = app.supervisor
    first = set(left_behind(supervisor.state)) - {app.haproxy_pid()}
    assert len(first) == 4
    app.release()
    assert app.reload()["result"] == "ok"
    app.wait_gone(*first)
    end = app.wait_state(1, "stopped")
    assert end["signal"] == "SIGKILL", "it ignores TERM"
    assert supervisor.stop() == 0
    assert left_behind(supervisor.state) == []
    assert not is_running(supervisor.pid)
