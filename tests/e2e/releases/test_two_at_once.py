"""An update and something else at a time: another update, a reload, a roll back, the death of whoever takes part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import wait_until
from tests.e2e.releases.rig import ReleasedApp, serves, unpacker
from tests.e2e.reload.rig import BothLoads, failures

FIFO = "go-on"


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    """How an update ended."""
    out, error = process.communicate(timeout=60)
    assert out, error
    found: dict[str, Any] = json.loads(out)
    return found


def test_second_update_is_refused_while_one_is_in_hand_and_the_first_is_not_touched(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="2")
    first, second = app.built(boot_seconds=1), app.built()
    with BothLoads(app) as load, app.running("release", "apply", str(first), "--json") as process:
        app.wait_state(2, "starting")
        refused = [app.apply(second)]
        app.wait_state(2, "serving")
        refused.append(app.apply(second))
        result = outcome(process)["result"]
        reports = load.stop()
    assert failures(reports) == {}
    assert [each["result"] for each in refused] == ["rejected", "rejected"]
    assert all("another update is in hand; wait for its end" in each["reason"] for each in refused)
    assert result == "ok"
    assert serves(app) == "2"
    assert app.run("release", "confirm").code == 0
    assert app.apply(second)["result"] == "ok"
    assert serves(app) == "3"
    assert app.history() == [("apply", "ok")]


def test_two_updates_at_the_same_moment_are_one_and_a_refused_one(app: ReleasedApp) -> None:
    app.boot()
    archives = [app.built(), app.built()]
    words = [("release", "apply", str(archive), "--json") for archive in archives]
    with app.running(*words[0]) as one, app.running(*words[1]) as other:
        found = [outcome(process) for process in (one, other)]
    results = [each["result"] for each in found]
    assert sorted(results) == ["ok", "rejected"], found
    assert serves(app) == str(results.index("ok") + 2)
    assert not list((app.place / "staging").iterdir())


def test_reload_and_roll_back_while_a_release_is_unpacked(app: ReleasedApp) -> None:
    app.boot()
    with BothLoads(app) as load:
        with app.running("release", "apply", str(app.built()), "--json") as process:
            child = wait_until("it is unpacked", lambda: unpacker(app))
            os.kill(child, signal.SIGSTOP)
            reload = app.reload()
            back = app.run("release", "rollback", "--json")
            os.kill(child, signal.SIGCONT)
            result = outcome(process)["result"]
        reports = load.stop()
    assert failures(reports) == {}
    assert reload["result"] == "ok"
    assert "another update is in hand" in back.json()["reason"]
    assert result == "ok"
    assert serves(app) == "2"


@pytest.mark.parametrize("phase", ["migrations", "starting", "serving"])
def test_reload_within_an_update_comes_after_it_or_before(app: ReleasedApp, folder: Path, phase: str) -> None:
    """Its migrations hold nobody up; its gate and bake are a turn, and what reloads then is the new release."""
    os.mkfifo(folder / FIFO)
    (app.folder / "migrate.sh").write_text("exit 0\n")
    app.boot(SUPERVISOR_MIGRATE_COMMAND="sh migrate.sh", SUPERVISOR_RELEASE_BAKE_SECONDS="1")
    slow = f"echo migrates\nread word < {folder / FIFO}\n" if phase == "migrations" else ""
    archive = app.built(files={"migrate.sh": slow}, boot_seconds=0.7)
    with BothLoads(app) as load:
        with app.running("release", "apply", str(archive), "--json") as process:
            if phase == "migrations":
                wait_until("it migrates", lambda: "migrates" in app.supervisor.output("migrate"))
                reload = app.reload()
                (folder / FIFO).write_text("go on\n")
            else:
                app.wait_state(2, phase)
                reload = app.reload()
            result = outcome(process)["result"]
        reports = load.stop()
    assert failures(reports) == {}
    assert (reload["result"], result) == ("ok", "ok")
    assert serves(app) == "2"
    assert app.state()["trial"]
    generations = app.supervisor.events("app.generation", state="serving")
    assert [event["generation"] for event in generations] == [1, 2, 3]


def test_update_within_a_reload_waits_for_its_turn(app: ReleasedApp) -> None:
    app.boot()
    archive = app.built()
    app.release(boot_seconds=2)
    with BothLoads(app) as load:
        with app.reloading() as reload:
            app.wait_state(2, "starting")
            result = app.apply(archive)
        reports = load.stop()
    assert failures(reports, may_go_back=True) == {}
    assert (reload["result"], result["result"]) == ("ok", "ok")
    assert serves(app) == "2"


@pytest.mark.parametrize("moment", ["unpacked", "starting"])
def test_sender_that_is_killed_leaves_nobody_locked_out(app: ReleasedApp, moment: str) -> None:
    app.boot()
    with app.running("release", "apply", str(app.built(boot_seconds=1)), "--json") as process:
        if moment == "starting":
            app.wait_state(2, "starting")
            process.kill()
        else:
            child = wait_until("it is unpacked", lambda: unpacker(app))
            os.kill(child, signal.SIGSTOP)
            process.kill()
            os.kill(child, signal.SIGCONT)
        process.communicate(timeout=30)
    wait_until("it is on trial, or undone", lambda: not (app.place / "journal.json").exists() or app.state()["trial"])
    assert serves(app) in ("1", "2")
    if app.state()["trial"]:
        wait_until("it can be confirmed", lambda: app.run("release", "confirm").code == 0)
    last = app.built()
    wait_until("another one is taken", lambda: app.apply(last)["result"] == "ok")
    assert serves(app) == "3"
    assert not list((app.place / "staging").iterdir())


def test_unpacker_that_is_killed_refuses_the_release_and_the_next_try_works(app: ReleasedApp) -> None:
    app.boot()
    archive = app.built()
    with BothLoads(app) as load:
        with app.running("release", "apply", str(archive), "--json") as process:
            os.kill(wait_until("it is unpacked", lambda: unpacker(app)), signal.SIGKILL)
            refused = outcome(process)
        reports = load.stop()
    assert failures(reports) == {}
    assert refused["result"] == "rejected"
    assert "cannot unpack the archive" in refused["reason"]
    assert not list((app.place / "staging").iterdir())
    assert app.apply(archive)["result"] == "ok"
    assert serves(app) == "2"


def test_second_supervisor_on_the_same_folder_is_refused_within_an_update(app: ReleasedApp) -> None:
    app.boot()
    with app.running("release", "apply", str(app.built(boot_seconds=2)), "--json") as process:
        app.wait_state(2, "starting")
        second = app.run("run", "--no-services", "--app-dir", str(app.folder), "--", "true")
        result = outcome(process)["result"]
    assert second.code != 0
    assert "another supervisor" in second.out + second.error
    assert result == "ok"
    assert serves(app) == "2"
