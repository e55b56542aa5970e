"""Releases that take their time: to start, and to break."""

from __future__ import annotations

import pytest

from tests.e2e.releases.rig import ReleasedApp, serves
from tests.e2e.reload.rig import LOST, MOST_LOST, BothLoads, failures


def test_release_that_starts_slowly_comes_into_service_and_nothing_fails(app: ReleasedApp, soak: bool) -> None:
    seconds = 45 if soak else 5
    app.boot(SUPERVISOR_APP_START_SECONDS=str(seconds + 15))
    archive = app.built(boot_seconds=seconds)
    with BothLoads(app) as load:
        outcome = app.apply(archive)
        load.version_at(2)
        reports = load.stop()
    assert failures(reports) == {}
    assert outcome["result"] == "ok"
    assert outcome["phases"]["try"] >= seconds
    assert serves(app) == "2"


def test_release_that_starts_more_slowly_than_it_says_is_refused_and_one_that_says_so_is_not(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_APP_START_SECONDS="1")
    slow = app.built(boot_seconds=2)
    patient = app.built(files={"release.toml": "[release]\nhealth = { start_seconds = 10.0 }\n"}, boot_seconds=2)
    with BothLoads(app) as load:
        refused = app.apply(slow)
        taken = app.apply(patient)
        reports = load.stop()
    assert failures(reports) == {}
    assert refused["result"] == "rejected"
    assert "1 s" in refused["reason"]
    assert taken["result"] == "ok"
    assert serves(app) == "3"


@pytest.mark.soak
def test_release_that_dies_after_twenty_seconds_of_its_bake_is_rolled_back(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="30")
    with BothLoads(app) as load:
        outcome = app.apply(app.built(dies_after=20))
        reports = load.stop()
    lost = failures(reports, may_go_back=True)
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST
    assert outcome["result"] == "rolled_back"
    assert serves(app) == "1"
