"""Volumes that are not as they should be: read-only, another user's, or of several layers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.harness import LIMIT, wait_until
from tests.e2e.releases.rig import ReleasedApp, serves
from tests.e2e.releases.volumes import MIB, mounted, remount, volume
from tests.e2e.reload.rig import BothLoads, failures

NOBODY = 65534
WITHOUT_ALL_RIGHTS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
"""Root to whom the rights of files count, as in a container that has dropped these capabilities."""


def why_it_ended(app: ReleasedApp) -> str:
    """Of a supervisor that does not boot: what it says, in its last words."""
    app.supervisor.start()
    assert app.supervisor.wait(LIMIT) != 0
    said = [event["msg"] for event in app.supervisor.events("error")]
    assert len(said) == 1, app.supervisor.log()
    return str(said[0])


def test_read_only_volume_is_named_at_the_start(app: ReleasedApp) -> None:
    with volume(app, f"size={MIB},ro"):
        why = why_it_ended(app)
    assert why.startswith(f"cannot put the releases in order: cannot use {str(app.place)!r}: read-only file system; ")


def test_volume_that_becomes_read_only_refuses_updates_and_what_serves_goes_on(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        app.good()
        app.good()
        archive = app.built()
        with BothLoads(app) as load:
            remount(place, "ro")
            applied = app.apply(archive)
            back = app.run("release", "rollback", "--json")
            reports = load.stop()
        assert failures(reports, may_go_back=True) == {}
        assert applied["result"] == "rejected"
        assert "read-only file system" in applied["reason"]
        assert back.code == 1
        assert "ead-only file system" in back.out + back.error
        assert serves(app) == "3"
        remount(place, "rw")
        assert app.apply(archive)["result"] == "ok"
        assert serves(app) == "4"
        remount(place, "ro")
        confirmed = app.run("release", "confirm")
        assert confirmed.code == 1
        assert "cannot confirm release 4.0" in confirmed.error
        assert "read-only file system" in " ".join(confirmed.error.split())
        remount(place, "rw")
        assert app.run("release", "confirm").code == 0
        # What could not be written down while it was read-only was owed, and came before the next.
        assert app.history() == [("apply", "ok")] * 2 + [
            ("apply", "rejected"),
            ("roll back", "rejected"),
            ("apply", "ok"),
        ]


def test_probation_that_ends_on_a_read_only_volume_leaves_the_trial_and_what_serves_goes_on(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot(SUPERVISOR_RELEASE_PROBATION_SECONDS="1")
        assert app.apply(app.built())["result"] == "ok"
        remount(place, "ro")
        wait_until("it says so", lambda: "read-only file system" in app.supervisor.log(), limit=5)
        assert app.state()["trial"]
        assert serves(app) == "2"
        remount(place, "rw")
        assert app.run("release", "confirm").code == 0


def of_another_user(app: ReleasedApp) -> None:
    """The folder of all releases is."""
    if os.geteuid() != 0:
        pytest.skip("only root may give it away")
    place = app.supervisor.state / "releases"
    place.mkdir(parents=True)
    os.chown(place, NOBODY, NOBODY)


def test_folder_of_another_user_is_named_at_the_start(app: ReleasedApp) -> None:
    of_another_user(app)
    app.supervisor.prefix = WITHOUT_ALL_RIGHTS
    why = why_it_ended(app)
    assert f"cannot use {str(app.place)!r}: permission denied" in why


def test_folder_of_another_user_is_used_by_root(app: ReleasedApp) -> None:
    of_another_user(app)
    app.boot()
    assert app.apply(app.built())["result"] == "ok"
    assert serves(app) == "2"


def test_releases_of_a_lower_layer_are_used_rolled_back_to_and_deleted(app: ReleasedApp, folder: Path) -> None:
    app.boot(SUPERVISOR_RELEASE_KEEP="1")
    app.good()
    lower = app.good()
    assert app.supervisor.stop() == 0
    place = app.supervisor.state / "releases"
    shutil.move(place, folder / "lower")
    layers = folder / "layers"
    with mounted(layers, "tmpfs", f"size={256 * MIB}"):
        for name in ("upper", "work"):
            (layers / name).mkdir()
        options = f"lowerdir={folder / 'lower'},upperdir={layers / 'upper'},workdir={layers / 'work'}"
        with mounted(place, "overlay", options):
            app.boot()
            assert serves(app) == "3"
            remaining = app.good()
            assert serves(app) == "4"
            assert app.run("release", "rollback").code == 0
            assert (serves(app), app.state()["active"]) == ("3", lower)
            assert sorted(path.name for path in (app.place / "releases").iterdir()) == sorted([lower, remaining])
            assert app.supervisor.stop() == 0
