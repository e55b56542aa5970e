"""New code that does not work: where the gate can see it, it never gets a request; where only requests show it, it
goes back.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.reload.clients import SlowRequest
from tests.e2e.reload.rig import LOST, MOST_LOST, App, BothLoads, failures

PUBLIC = {"listen": "public", "address": "0.0.0.0"}
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "exits": ({"exit": 1}, "exited with 1 before it was healthy"),
    "never listens": ({"listen": "never"}, "listens on no port"),
    "is late": ({"boot_seconds": 5}, "not healthy after 1.2 s"),
    "answers 500": ({"health_status": 500}, "500"),
    "is slow": ({"delay_seconds": 5}, "not healthy after"),
    "wrong port": ({"port_off": 1000}, "not on the port in PORT"),
    "public port": (
        {"listen": "public", "address": "0.0.0.0"},
        "; let it listen on the port in PORT, or set SUPERVISOR_FRONT",
    ),
    "nameless port": (
        {"listen": "public", "address": "0.0.0.0", "names_port": False},
        "the front holds the public port",
    ),
    "wrong address": ({"address": "127.0.0.9"}, "127.0.0.9"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_release_is_rejected_with_its_reason_and_no_request_fails(app: App, name: str) -> None:
    behaviour, reason = BROKEN[name]
    app.boot(SUPERVISOR_APP_START_SECONDS="1.2", SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS="0.5")
    app.release(**behaviour)
    with BothLoads(app, rate=100) as load:
        outcome = app.reload()
        reports = load.stop()
    assert outcome["result"] == "rejected"
    assert reason in outcome["reason"]
    assert "public port" not in name or f"public port {app.supervisor.port}" in outcome["reason"]
    assert failures(reports) == {}
    assert all(set(report.after.versions) == {1} for report in reports)
    app.wait_gone(app.pid_of(2))


def test_release_that_turns_bad_in_the_bake_goes_back(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="5")
    app.release(bad_after=1)
    with BothLoads(app, rate=100) as load:
        outcome = app.reload()
        reports = load.stop()
    assert outcome["result"] == "rolled_back"
    assert "500" in outcome["reason"] or "5xx" in outcome["reason"]
    lost = failures(reports, may_go_back=True)
    assert set(lost) == {"status 500"}
    assert lost["status 500"] <= 200 * 1.5, "long before the end of the bake, 4 s later; the bench has how soon"
    app.wait_state(2, "failed")
    app.wait_gone(app.pid_of(2))


def test_release_that_exits_in_the_bake_goes_back(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="5")
    app.release(dies_after=1.2)
    with BothLoads(app, rate=100) as load:
        outcome = app.reload()
        reports = load.stop()
    assert outcome["result"] == "rolled_back"
    assert "SIGALRM" in outcome["reason"]
    lost = failures(reports, may_go_back=True)
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST


def test_release_that_dies_in_the_bake_tells_how_many_requests_were_lost_with_it(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="5")
    app.release()
    with app.reloading() as outcome:
        app.wait_state(2, "serving")
        with SlowRequest(app.url, 20) as one, SlowRequest(app.url, 20) as two:
            app.kill(2)
            assert [each.answer()[0] for each in (one, two)] == [502, 502]
    assert outcome["result"] == "rolled_back"
    wait_until("it is told", lambda: "2 requests got no answer as generation 2 ended" in app.supervisor.log(), limit=5)


def test_release_that_hangs_in_the_bake_goes_back(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="5", SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS="0.5")
    app.release(hang_after=0.7)
    outcome = app.reload()
    assert outcome["result"] == "rolled_back"
    assert "hung" in outcome["reason"]


@pytest.mark.parametrize("way", ["notify", "fd"])
def test_release_that_must_say_ready_serves_once_it_said_so_and_not_before(app: App, way: str) -> None:
    app.release(ready=way)
    app.boot(SUPERVISOR_APP_READY=way, SUPERVISOR_APP_START_SECONDS="1.2")
    app.release()
    outcome = app.reload()
    assert outcome["result"] == "rejected"
    assert "READY" in outcome["reason"]
    app.release(ready=way)
    assert app.reload()["result"] == "ok"
