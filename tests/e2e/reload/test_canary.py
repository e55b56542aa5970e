"""New code beside the old one, with a part of the requests first."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.harness import request, wait_until
from tests.e2e.reload.rig import LOST, MOST_LOST, App, BothLoads, failures


def versions(app: App, count: int) -> Counter[str]:
    """Who answers so many requests."""
    return Counter(request(app.supervisor.port, "/echo")[1] for _ in range(count))


def wait_canary(app: App) -> None:
    wait_until("the canary runs", lambda: "canary: generation 2 gets" in app.supervisor.log(), limit=20)


def test_canary_gets_its_share_and_then_all_when_it_is_promoted(app: App) -> None:
    app.boot()
    app.release()
    with app.reloading("?canary=20&for=20") as outcome:
        wait_canary(app)
        share = versions(app, 200)["2"]
        assert 30 <= share <= 50, share
        told = app.supervisor.cli("reload", "--promote")
        assert told.returncode == 0, told.stderr
    assert outcome["result"] == "ok"
    assert versions(app, 20) == {"2": 20}
    assert outcome["phases"]["canary"] > 0


def test_canary_that_is_aborted_is_gone_and_nothing_changed(app: App) -> None:
    app.boot()
    app.release()
    with app.reloading("?canary=20&for=20") as outcome:
        wait_canary(app)
        assert app.supervisor.cli("reload", "--abort").returncode == 0
    assert outcome["result"] == "rejected"
    assert "aborted" in outcome["reason"]
    assert versions(app, 20) == {"1": 20}
    app.wait_gone(app.pid_of(2))
    assert app.supervisor.cli("reload", "--promote").returncode == 1, "there is none any more"


def test_good_canary_is_promoted_by_itself(app: App) -> None:
    app.boot()
    app.release()
    with BothLoads(app, rate=80) as load:
        told = app.supervisor.cli("reload", "--canary", "10%", "--for", "1s")
        reports = load.stop()
    assert told.returncode == 0, told.stderr
    assert failures(reports, may_go_back=True) == {}
    assert versions(app, 20) == {"2": 20}


@pytest.mark.parametrize("behaviour", [{"bad_after": 1}, {"dies_after": 1.5}, {"hang_after": 1}], ids=str)
def test_failing_canary_goes_back_by_itself(app: App, behaviour: dict[str, float]) -> None:
    app.boot(SUPERVISOR_APP_HEALTH_TIMEOUT_SECONDS="0.5")
    app.release(**behaviour)
    with BothLoads(app, rate=80) as load:
        outcome = app.reload("?canary=25&for=30")
        reports = load.stop()
    assert outcome["result"] == "rejected"
    assert "the canary, generation 2, failed" in outcome["reason"]
    lost = failures(reports, may_go_back=True)
    assert sum(lost.values()) <= MOST_LOST
    assert versions(app, 20) == {"1": 20}
    app.wait_gone(app.pid_of(2))


def test_canary_gets_all_when_the_serving_one_dies(app: App) -> None:
    app.boot()
    app.release()
    with BothLoads(app, rate=80) as load:
        with app.reloading("?canary=20&for=20") as outcome:
            wait_canary(app)
            app.kill(1)
        reports = load.stop()
    assert outcome["result"] == "ok", outcome
    lost = failures(reports, may_go_back=True)
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST
    assert versions(app, 20) == {"2": 20}
