"""The supervisor killed in the middle of an update, and trials that do not survive a restart."""

from __future__ import annotations

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.harness import left_behind, request, wait_until
from tests.e2e.releases.rig import ReleasedApp


def agrees(app: ReleasedApp) -> str:
    """What serves is what the disk says; nothing is left of what was cut short. Gives the version."""
    state = app.state()
    text = request(app.supervisor.port, "/echo")[1]
    link = app.place / "current"
    if state["active"] == "baked":
        assert not link.is_symlink()
    else:
        assert link.resolve().name == state["active"]
        assert json.loads((link / "behaviour.json").read_text())["version"] == int(text)
    assert not list((app.place / "staging").iterdir())
    assert not list((app.place / "incoming").iterdir())
    assert (app.place / "journal.json").exists() == state["trial"]
    wait_until("HAProxy and one generation run", lambda: len(left_behind(app.supervisor.state)) == 2, limit=10)
    assert app.run("release", "history", "--verify").code == 0
    return text


def killed_and_booted(app: ReleasedApp, process: subprocess.Popen[str]) -> None:
    app.supervisor.kill()
    process.communicate(timeout=30)
    app.boot()


@pytest.mark.parametrize(("state", "serves"), [("starting", "1"), ("serving", "2")])
def test_kill_in_the_gate_leaves_the_old_release_and_in_the_bake_the_trial(
    app: ReleasedApp, state: str, serves: str
) -> None:
    # Long only where the kill is to fall into it: the release that is applied in the end has it too.
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="20" if state == "serving" else "0.3")
    archive = app.built(boot_seconds=2 if state == "starting" else 0.2)
    with app.running("release", "apply", str(archive)) as process:
        app.wait_state(2, state)
        killed_and_booted(app, process)
    assert agrees(app) == serves
    assert app.state()["trial"] == (serves == "2")
    if serves == "2":
        assert app.run("release", "confirm").code == 0
    else:
        assert app.apply(archive)["result"] == "ok"
    assert agrees(app) == "2"


def test_kill_at_random_moments_of_an_update_never_needs_a_hand(app: ReleasedApp, soak: bool) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="0")
    for _ in range(25 if soak else 5):
        before = request(app.supervisor.port, "/echo")[1]
        archive = app.built()
        with app.running("release", "apply", str(archive)) as process:
            time.sleep(random.uniform(0.2, 1.6))  # the moment is what is tried, nothing is waited for
            killed_and_booted(app, process)
        assert agrees(app) in (before, str(app.version))
        if app.state()["trial"]:
            assert app.run("release", "confirm").code == 0


def test_trial_that_does_not_start_again_goes_back_to_the_good_release(app: ReleasedApp) -> None:
    app.boot()
    assert app.apply(app.built())["result"] == "ok"
    tree = app.place / "current"
    (tree / "behaviour.json").write_text('{"version": 2, "exit": 4}')
    app.supervisor.kill()
    app.boot()
    assert agrees(app) == "1"
    assert "the release on trial did not start and is rolled back" in app.supervisor.log()
    assert app.history() == [("apply", "rolled_back")]


def test_trial_that_ends_the_container_again_and_again_runs_out_of_starts(app: ReleasedApp) -> None:
    app.boot()
    assert app.apply(app.built())["result"] == "ok"
    for _ in range(2):
        app.supervisor.kill()
        app.boot()
        assert agrees(app) == "2"
    app.supervisor.kill()
    app.boot()
    assert agrees(app) == "1"
    assert app.history() == [("apply", "rolled_back")]


def test_stop_in_the_bake_is_in_order_and_the_trial_goes_on(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="20")
    archive = app.built()
    with app.running("release", "apply", str(archive)) as process:
        app.wait_state(2, "serving")
        assert app.supervisor.stop() == 0
        process.communicate(timeout=30)
    assert process.returncode != 0
    app.boot()
    assert agrees(app) == "2"
    assert app.state()["trial"]


def test_hup_while_a_release_is_received_is_not_held_up(app: ReleasedApp, folder: Path) -> None:
    app.boot()
    archive = app.built()
    fifo = folder / "slow.tar.zst"
    subprocess.run(["mkfifo", str(fifo)], check=True)
    manifest = archive.parent / "manifest.json"
    with app.running("release", "apply", str(fifo), "--manifest", str(manifest)) as process:
        with fifo.open("wb") as slow:
            data = archive.read_bytes()
            slow.write(data[:100])
            slow.flush()
            assert app.reload()["result"] == "ok"
            slow.write(data[100:])
        out, error = process.communicate(timeout=30)
    assert process.returncode == 0, out + error
    wait_until("it serves", lambda: request(app.supervisor.port, "/echo")[1] == "2")
