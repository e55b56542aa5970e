"""The disk is full at one step or another of an update: what served goes on, and an update works once there is room."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from supervisor.releases.reserve import RESERVE_BYTES
from tests.e2e.harness import wait_until
from tests.e2e.releases.rig import ReleasedApp, serves, stopped_unpacker
from tests.e2e.releases.volumes import MIB, fill, fill_inodes, remount, volume
from tests.e2e.reload.rig import BothLoads, failures


def heavy(app: ReleasedApp, mib: int = 4, files: int = 40, **behaviour: Any) -> Path:
    """A release that takes some room, packed too."""
    sources = app.folder.parent / f"source-{app.version + 1}"
    (sources / "data").mkdir(parents=True)
    for number in range(files):
        (sources / "data" / str(number)).write_bytes(secrets.token_bytes(mib * MIB // files))
    return app.built(**behaviour)


def refused(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The outcome of an update that did not work."""
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1, out + error
    outcome: dict[str, Any] = json.loads(out)
    assert outcome["result"] == "rejected", outcome
    return outcome


def reserved(app: ReleasedApp) -> int:
    """How much is kept back for the records."""
    place = app.place / "reserve.bin"
    return place.stat().st_size if place.exists() else 0


def is_clean(app: ReleasedApp) -> bool:
    """Nothing is left of what did not work."""
    return not list((app.place / "staging").iterdir())


def test_small_volume_takes_a_small_release_and_says_how_much_a_large_one_needs(
    app: ReleasedApp,
) -> None:
    with volume(app, f"size={64 * MIB}") as place:
        app.boot()
        wait_until("some space is kept back", lambda: reserved(app) == 2 * MIB)
        small, large = heavy(app), heavy(app, 30)
        with BothLoads(app) as load:
            filler = fill(place, but_bytes=MIB)
            full = app.apply(small)
            filler.unlink()
            fits = app.apply(small)
            assert app.run("release", "confirm").code == 0
            too_large = app.apply(large)
            reports = load.stop()
        assert failures(reports) == {}
        assert (full["result"], fits["result"], too_large["result"]) == ("rejected", "ok", "rejected")
        assert "in step 'receive' the supervisor cannot use" in full["reason"]
        assert "no space left on device; make room there" in full["reason"]
        assert "bytes are missing on the disk" in too_large["reason"]
        assert f"{4 * MIB:,} in reserve" in too_large["reason"]
        assert "make the volume larger" in too_large["reason"]
        assert is_clean(app)
        assert serves(app) == "2"
        remount(place, f"size={256 * MIB}")
        assert app.apply(large)["result"] == "ok"
        assert serves(app) == "3"
        assert app.history() == [("apply", "rejected"), ("apply", "ok"), ("apply", "rejected")]


def test_volume_without_inodes_says_how_many_are_needed_and_takes_the_release_once_there_are(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB},nr_inodes=500") as place:
        app.boot()
        archive = heavy(app)
        with BothLoads(app) as load:
            few = app.apply(archive)
            remount(place, "nr_inodes=2000")
            with app.running("release", "apply", str(archive), "--json") as process:
                child = stopped_unpacker(app)
                folder = fill_inodes(place)
                os.kill(child, signal.SIGCONT)
                none = refused(process)
            reports = load.stop()
        assert failures(reports) == {}
        assert "too few inodes: the update takes 1,04" in few["reason"]
        assert "no room for it" in none["reason"]
        assert is_clean(app)
        shutil.rmtree(folder)
        assert app.apply(archive)["result"] == "ok"
        assert serves(app) == "2"
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]


def test_disk_that_fills_while_it_is_unpacked_or_made_active_leaves_what_served(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        first, second = heavy(app, 16), heavy(app, 1, boot_seconds=1)
        with BothLoads(app) as load:
            with app.running("release", "apply", str(first), "--json") as process:
                child = stopped_unpacker(app)
                filler = fill(place)
                os.kill(child, signal.SIGCONT)
                unpacked = refused(process)
            filler.unlink()
            with app.running("release", "apply", str(second), "--json") as process:
                app.wait_state(2, "starting")
                filler = fill(place)
                active = refused(process)
            reports = load.stop()
        assert failures(reports) == {}
        assert "there is no room for it" in unpacked["reason"]
        assert "cannot write down that it is active" in active["reason"]
        assert "make room there" in active["reason"]
        assert is_clean(app)
        assert app.state()["active"] == "baked"
        filler.unlink()
        assert app.apply(second)["result"] == "ok"
        assert serves(app) == "3"
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]


def test_disk_so_full_that_nothing_can_be_written_down_says_why_and_what_was_wrong(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        archive = heavy(app, 1, boot_seconds=1)
        with BothLoads(app) as load:
            with app.running("release", "apply", str(archive), "--json") as process:
                app.wait_state(2, "starting")
                (app.place / "reserve.bin").unlink()
                shutil.rmtree(app.place / ".trash")
                filler = fill(place)
                outcome = refused(process)
            reports = load.stop()
        assert failures(reports) == {}
        assert "cannot write down that it is active" in outcome["reason"]
        assert "that is not written down yet, as the supervisor cannot use" in outcome["reason"]
        assert serves(app) == "1"
        filler.unlink()
        assert app.apply(archive)["result"] == "ok"
        assert serves(app) == "2"
        assert is_clean(app)
        assert app.history() == [("apply", "rejected")]


def fill_for_good(app: ReleasedApp, place: Path) -> None:
    """Full, and it stays so: the records that are there keep their blocks though they are replaced."""
    for name in ("state.json", "state.json.1"):
        with suppress(FileNotFoundError):
            os.link(app.place / name, app.place / f"{name}.{secrets.token_hex(4)}")
    fill(place)


def test_supervisor_starts_with_a_trial_and_confirms_it_though_the_disk_is_full(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        good = app.good()
        trial = app.apply(app.built())["detail"]["release"]
        fill_for_good(app, place)
        app.supervisor.kill()
        app.boot()
        assert (serves(app), app.state()["active"]) == ("3", trial)
        (place / "filler").unlink()
        app.supervisor.kill()
        app.boot(SUPERVISOR_RELEASE_PROBATION_SECONDS="2")
        wait_until("some space is kept back", lambda: reserved(app) == RESERVE_BYTES)
        fill_for_good(app, place)
        wait_until("it is good", lambda: not app.state()["trial"], limit=20)
        assert app.state()["previous"] == good
        wait_until("it is told", lambda: app.history() == [("apply", "ok"), ("apply", "ok")], limit=20)
