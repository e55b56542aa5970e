"""The disk is full at one step or another of an update: what served goes on, and an update works once there is room.

An update takes 64 MiB in reserve, so on a volume of 64 MiB there is none for any.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.harness import request, wait_until
from tests.e2e.releases.rig import ReleasedApp
from tests.e2e.releases.volumes import MIB, fill, fill_inodes, mounted, remount
from tests.e2e.reload.rig import BothLoads, failures


@contextmanager
def volume(app: ReleasedApp, options: str) -> Iterator[Path]:
    """The folder of all releases is a file system in memory."""
    with mounted(app.supervisor.state / "releases", "tmpfs", options) as place:
        try:
            yield place
        finally:
            app.supervisor.end_everything()


def heavy(app: ReleasedApp, mib: int = 4, files: int = 40, **behaviour: Any) -> Path:
    """A release that takes some room, packed too."""
    sources = app.folder.parent / f"source-{app.version + 1}"
    (sources / "data").mkdir(parents=True)
    for number in range(files):
        (sources / "data" / str(number)).write_bytes(secrets.token_bytes(mib * MIB // files))
    return app.built(**behaviour)


def unpacker(app: ReleasedApp) -> int | None:
    """The process that unpacks, once it is there."""
    for word in Path(f"/proc/{app.supervisor.own_pid}/task/{app.supervisor.own_pid}/children").read_text().split():
        with suppress(OSError):
            if b"supervisor.releases.unpack.child" in Path(f"/proc/{word}/cmdline").read_bytes():
                return int(word)
    return None


def refused(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The outcome of an update that did not work."""
    out, error = process.communicate(timeout=60)
    assert process.returncode == 1, out + error
    outcome: dict[str, Any] = json.loads(out)
    assert outcome["result"] == "rejected", outcome
    return outcome


def is_clean(app: ReleasedApp) -> bool:
    """Nothing is left of what did not work."""
    return not list((app.place / "staging").iterdir())


def test_volume_that_is_too_small_says_how_much_is_needed_and_takes_the_release_once_it_is_larger(
    app: ReleasedApp,
) -> None:
    with volume(app, f"size={64 * MIB}") as place:
        app.boot()
        archive = heavy(app)
        with BothLoads(app) as load:
            small = app.apply(archive)
            filler = fill(place, but_bytes=MIB)
            full = app.apply(archive)
            filler.unlink()
            reports = load.stop()
        assert failures(reports) == {}
        assert small["result"] == full["result"] == "rejected"
        assert "bytes are missing on the disk" in small["reason"]
        assert "make the volume larger" in small["reason"]
        assert "no space left on device; make room there" in full["reason"]
        assert is_clean(app)
        assert app.state()["active"] == "baked"
        remount(place, f"size={256 * MIB}")
        assert app.apply(archive)["result"] == "ok"
        assert request(app.supervisor.port, "/echo")[1] == "2"
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]


def test_volume_without_inodes_says_how_many_are_needed_and_takes_the_release_once_there_are(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB},nr_inodes=500") as place:
        app.boot()
        archive = heavy(app)
        with BothLoads(app) as load:
            few = app.apply(archive)
            remount(place, "nr_inodes=2000")
            with app.running("release", "apply", str(archive), "--json") as process:
                child = wait_until("it is unpacked", lambda: unpacker(app))
                os.kill(child, signal.SIGSTOP)
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
        assert request(app.supervisor.port, "/echo")[1] == "2"
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]


def test_disk_that_fills_while_it_is_unpacked_or_made_active_leaves_what_served(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        first, second = heavy(app, 16), heavy(app, 1, boot_seconds=2)
        with BothLoads(app) as load:
            with app.running("release", "apply", str(first), "--json") as process:
                child = wait_until("it is unpacked", lambda: unpacker(app))
                os.kill(child, signal.SIGSTOP)
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
        assert request(app.supervisor.port, "/echo")[1] == "3"
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]


def test_disk_so_full_that_nothing_can_be_written_down_says_why_and_what_was_wrong(app: ReleasedApp) -> None:
    with volume(app, f"size={256 * MIB}") as place:
        app.boot()
        archive = heavy(app, 1, boot_seconds=2)
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
        assert "that is not written down yet, as the supervisor cannot write" in outcome["reason"]
        assert request(app.supervisor.port, "/echo")[1] == "1"
        filler.unlink()
        assert app.apply(archive)["result"] == "ok"
        assert request(app.supervisor.port, "/echo")[1] == "2"
        assert is_clean(app)
        assert app.history() == [("apply", "rejected")]
