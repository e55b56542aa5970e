"""Releases built, applied under traffic, refused, rolled back: by the commands a user gives."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import answers, request, wait_until
from tests.e2e.releases.rig import ReleasedApp
from tests.e2e.reload.rig import LOST, MOST_LOST, BothLoads, failures


def serves(app: ReleasedApp) -> str:
    status, text = request(app.supervisor.port, "/echo")
    assert status == 200
    return text


def test_releases_follow_each_other_under_load_and_no_request_fails(app: ReleasedApp) -> None:
    app.boot()
    with BothLoads(app) as load:
        first = app.good()
        load.version_at(app.version)
        second = app.good()
        load.version_at(app.version)
        back = app.run("release", "rollback", "--json")
        reports = load.stop()
    assert failures(reports, may_go_back=True) == {}
    assert back.json()["result"] == "ok"
    assert back.json()["detail"]["release"] == first
    assert serves(app) == "2"
    assert app.state()["previous"] == second
    assert app.history() == [("apply", "ok"), ("apply", "ok"), ("roll back", "ok")]


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [({"health_status": 500}, "500"), ({"exit": 4}, "exited with 4"), ({"listen": "never"}, "connection refused")],
    ids=["500s", "exits", "deaf"],
)
def test_release_that_is_broken_is_refused_under_load_and_nothing_fails(
    app: ReleasedApp, behaviour: dict[str, Any], why: str
) -> None:
    app.boot()
    bad = app.built(**behaviour)
    with BothLoads(app) as load:
        outcome = app.apply(bad)
        reports = load.stop()
    assert failures(reports) == {}
    assert outcome["result"] == "rejected"
    assert why in outcome["reason"]
    assert {"receive", "unpack", "try"} <= set(outcome["phases"]), "also of what failed it is said how far it came"
    assert serves(app) == "1"
    assert app.history() == [("apply", "rejected")]
    assert app.state()["active"] == "baked"


def test_release_that_dies_in_the_bake_is_rolled_back(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="5")
    bad = app.built(dies_after=1.5)
    with BothLoads(app) as load:
        outcome = app.apply(bad)
        reports = load.stop()
    lost = failures(reports, may_go_back=True)
    assert set(lost) <= LOST
    assert sum(lost.values()) <= MOST_LOST
    assert outcome["result"] == "rolled_back"
    assert outcome["phases"]["try"] >= 1.5
    assert serves(app) == "1"
    assert (app.state()["active"], app.state()["trial"]) == ("baked", False)
    assert app.history() == [("apply", "rolled_back")]


def test_roll_back_in_the_bake_is_one_switch(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_BAKE_SECONDS="60")
    archive = app.built()
    with BothLoads(app) as load, app.running("release", "apply", str(archive), "--json") as process:
        app.wait_state(2, "serving")
        load.version_at(app.version)
        back = app.run("release", "rollback", "--json").json()
        out, _ = process.communicate(timeout=30)
        reports = load.stop()
    assert failures(reports, may_go_back=True) == {}
    assert back["result"] == "ok"
    starts = app.supervisor.events("app.generation", state="starting")
    assert [event["generation"] for event in starts] == [1, 2], "the old one was kept warm, nothing is started for it"
    assert json.loads(out)["result"] == "rolled_back"
    assert serves(app) == "1"
    assert app.history() == [("apply", "rolled_back")]


def test_confirmed_release_serves_after_a_restart_and_reloads_stay_in_it(app: ReleasedApp) -> None:
    app.boot()
    release = app.good()
    assert app.supervisor.stop() == 0
    app.boot()
    assert serves(app) == "2"
    assert app.reload()["result"] == "ok"
    assert serves(app) == "2"
    (row,) = [row for row in app.run("release", "list", "--json").json() if row["use"] == "active"]
    assert (row["release"], row["confirmed"]) == (release, True)


def test_files_of_a_release_have_the_time_it_was_built(app: ReleasedApp) -> None:
    app.boot()
    archive = app.built()
    assert app.apply(archive)["result"] == "ok"
    created = datetime.fromisoformat(json.loads((archive.parent / "manifest.json").read_text())["created"])
    assert (app.place / "current" / "echo_app.py").stat().st_mtime == created.timestamp()


def test_release_that_held_is_good_after_its_probation(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_PROBATION_SECONDS="0.5")
    assert app.apply(app.built())["result"] == "ok"
    wait_until("it is good", lambda: not app.state()["trial"], limit=10)
    assert app.history() == [("apply", "ok")]


def test_release_that_crashes_again_and_again_in_its_probation_goes_back(app: ReleasedApp) -> None:
    app.boot()
    first = app.good()
    outcome = app.apply(app.built())
    assert outcome["result"] == "ok"
    for number in range(3):
        generation = app.supervisor.status()["apps"][0]["generation"]
        app.kill(generation)
        if number < 2:
            app.wait_state(generation + 1, "serving")
    wait_until("it is back", lambda: app.state()["active"] == first, limit=20)
    wait_until("the one before serves", lambda: answers(app.supervisor.port, "/echo") == 200 and serves(app) == "2")
    told = [("apply", "ok"), ("apply", "rolled_back"), ("roll back", "ok")]
    wait_until("the history tells it", lambda: app.history() == told, limit=10)


def test_probation_of_a_release_is_its_own(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_PROBATION_SECONDS="4")
    assert app.apply(app.built())["result"] == "ok"
    began = time.monotonic()
    assert app.run("release", "confirm").code == 0
    assert app.apply(app.built())["result"] == "ok"
    second = time.monotonic()
    wait_until("it is good", lambda: not app.state()["trial"], limit=20)
    assert time.monotonic() - second > 3.5, "not by the clock of the one before"
    assert second > began


def test_status_says_what_the_app_runs_from_and_who_signed_it(app: ReleasedApp) -> None:
    app.boot()
    row = app.supervisor.status()["apps"][0]["release"]
    assert (row["release"], row["trial"]) == ("baked", False)
    release = app.apply(app.built())["detail"]["release"]
    row = app.supervisor.status()["apps"][0]["release"]
    assert row == {"release": release, "signed_by": "", "trial": True, "good": "baked"}
    shown = app.run("status").out
    assert f"release of app: {release} (signed by nobody, on trial, baked is the good one)" in " ".join(shown.split())


def test_kept_releases_are_shown_with_what_was_changed_in_them_and_deleted_when_asked(app: ReleasedApp) -> None:
    app.boot()
    first, second, third = (app.good() for _ in range(3))
    assert app.run("release", "show", second).json()["damaged"] == ""
    with (app.place / "releases" / second / "behaviour.json").open("a") as file:
        file.write(" ")
    assert "not what they were" in app.run("release", "show", second).json()["damaged"]
    assert app.run("release", "prune").out == "deleted: nothing\n"
    assert app.run("release", "prune", "--keep", "0").out == f"deleted: {first}\n", "the way back stays"
    kept = {path.name for path in (app.place / "releases").iterdir()}
    assert kept == {second, third}
    refused = app.run("release", "prune", "--keep", "-1")
    assert refused.code == 64


def test_unsigned_release_is_refused_by_default_and_says_what_to_set(app: ReleasedApp) -> None:
    del app.supervisor.environ["SUPERVISOR_RELEASE_UNSIGNED"]
    app.boot()
    outcome = app.apply(app.built())
    assert outcome["result"] == "rejected"
    assert "SUPERVISOR_RELEASE_UNSIGNED=allow" in outcome["reason"]
    assert "supervisor release sign" in outcome["reason"]


def test_signed_release_is_accepted_by_its_key_and_no_other(app: ReleasedApp, folder: Path) -> None:
    del app.supervisor.environ["SUPERVISOR_RELEASE_UNSIGNED"]
    keys = folder / "keys"
    keys.mkdir()
    for name in ("ours", "stranger"):
        assert app.run("release", "keygen", str(folder / name), "--no-password").code == 0
    (folder / "ours.pub").rename(keys / "ours.pub")
    app.boot(SUPERVISOR_RELEASE_KEYS=str(keys))
    strange = app.apply(app.built("--key", str(folder / "stranger")))
    assert strange["result"] == "rejected"
    assert "is not trusted here" in strange["reason"]
    assert app.apply(app.built("--key", str(folder / "ours")))["result"] == "ok"
    assert serves(app) == "3"
    assert app.run("release", "confirm").code == 0
    (row,) = [row for row in app.run("release", "list", "--json").json() if row["use"] == "active"]
    assert (keys / "ours.pub").read_text().splitlines()[0].endswith(f" {row['key']}")


def test_older_release_is_refused_unless_asked_for(app: ReleasedApp) -> None:
    app.boot()
    older = app.built()
    app.good()
    outcome = app.apply(older)
    assert outcome["result"] == "rejected"
    assert "--allow-downgrade" in outcome["reason"]
    assert app.apply(older, "--allow-downgrade")["result"] == "ok"
    assert serves(app) == "2"


def test_changed_archive_is_refused(app: ReleasedApp) -> None:
    app.boot()
    archive = app.built()
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    outcome = app.apply(archive)
    assert outcome["result"] == "rejected"
    assert "the manifest says" in outcome["reason"]
    assert not list((app.place / "staging").iterdir())


@pytest.mark.parametrize(("whole", "said"), [(True, '"result": "ok"'), (False, "the manifest says")])
def test_archive_may_come_from_standard_input(app: ReleasedApp, whole: bool, said: str) -> None:
    app.boot()
    archive = app.built()
    words = ("release", "apply", "-", "--json", "--manifest", str(archive.parent / "manifest.json"))
    with (archive if whole else Path(os.devnull)).open("rb") as source, app.running(*words, stdin=source) as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode, said in out) == (int(not whole), True), error


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("apply", "nothing.tar.zst"), 64, "cannot read"),
        (("apply", "-"), 64, "give --manifest FILE"),
        (("rollback",), 1, "no way back at all"),
        (("rollback", "9.9-aaaaaaaaaaaa"), 1, "no way back to"),
        (("show", "9.9-aaaaaaaaaaaa"), 64, "see `supervisor release list`"),
        (("confirm",), 1, "no release is on trial"),
        (("list", "--app", "other"), 1, "no such app"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_order_says_what_to_do(app: ReleasedApp, words: tuple[str, ...], code: int, text: str) -> None:
    app.boot()
    ended = app.run("release", *words)
    assert ended.code == code, ended
    assert text in " ".join((ended.out + ended.error).split())


def put(app: ReleasedApp, archive: Path, folder: str = "") -> Path:
    """As `docker cp` does, the archive before the manifest."""
    inbox = app.place / "incoming" / folder
    inbox.mkdir(exist_ok=True)
    for name in (archive.name, "manifest.json"):
        shutil.copy(archive.parent / name, inbox)
    return inbox


@pytest.mark.parametrize("below", ["", "dist-tarball"])
def test_release_that_is_put_into_the_inbox_is_taken_in(app: ReleasedApp, below: str) -> None:
    app.boot()
    inbox = put(app, app.built(), below)
    wait_until("it serves", lambda: serves(app) == "2", limit=20)
    wait_until("the inbox is empty", lambda: not list(inbox.iterdir()), limit=20)
    assert app.history() == []  # it is on trial
    assert app.run("release", "confirm").code == 0
    assert app.history() == [("apply", "ok")]


def test_release_in_the_inbox_that_is_refused_says_why_and_is_not_tried_again(app: ReleasedApp) -> None:
    app.boot()
    inbox = put(app, app.built(exit=4))
    wait_until("it says why", lambda: (inbox / "refused.txt").exists(), limit=20)
    assert "exited with 4" in (inbox / "refused.txt").read_text()
    assert (inbox / "manifest.json.refused").exists()
    assert serves(app) == "1"


def test_half_an_archive_in_the_inbox_is_waited_for(app: ReleasedApp) -> None:
    app.boot()
    archive = app.built()
    whole = archive.read_bytes()
    archive.write_bytes(whole[:200])
    inbox = put(app, archive)
    (inbox / archive.name).write_bytes(whole)
    wait_until("it serves", lambda: serves(app) == "2", limit=20)
    assert not (inbox / "refused.txt").exists()


@pytest.mark.parametrize(("policy", "version"), [("newest", "2"), ("image", "3"), ("volume", "2")])
def test_changed_image_is_decided_at_the_boot_and_told(app: ReleasedApp, policy: str, version: str) -> None:
    app.boot(SUPERVISOR_ON_IMAGE_CHANGE=policy)
    app.good()
    assert app.supervisor.stop() == 0
    app.release(boot_seconds=0.1)
    app.boot()
    assert serves(app) == version
    assert "the image's app has changed" in app.supervisor.log()


def original(app: ReleasedApp, folder: Path, **info: str) -> Path:
    """An archive of the older kind: `app/...` and `deployment-info.json`, no manifest."""
    built = app.built()
    made = folder / "deployment.tar.gz"
    source = built.parent.parent
    with tarfile.open(made, "w:gz") as archive:
        archive.add(source, "app", filter=lambda item: None if "dist-tarball" in item.name else item)
        text = json.dumps(info).encode()
        record = tarfile.TarInfo("deployment-info.json")
        record.size = len(text)
        archive.addfile(record, io.BytesIO(text))
    return made


def test_archive_of_the_older_kind_is_taken_as_an_unsigned_release(app: ReleasedApp, folder: Path) -> None:
    app.boot()
    outcome = app.apply(original(app, folder, version="7.1", commit="abc", branch="main"))
    assert outcome["result"] == "ok", outcome
    assert outcome["detail"]["release"].startswith("7.1-")
    assert serves(app) == "2"
    shown = app.run("release", "show", outcome["detail"]["release"]).json()
    assert (shown["key"], shown["manifest"]["git"]["commit"]) == ("", "abc")
    assert not list((app.place / "staging").iterdir())


def test_archive_of_the_older_kind_is_refused_where_releases_must_be_signed(app: ReleasedApp, folder: Path) -> None:
    del app.supervisor.environ["SUPERVISOR_RELEASE_UNSIGNED"]
    app.boot()
    outcome = app.apply(original(app, folder))
    assert outcome["result"] == "rejected"
    assert "cannot accept an archive without a manifest" in outcome["reason"]
    assert "SUPERVISOR_RELEASE_UNSIGNED=allow" in outcome["reason"]
