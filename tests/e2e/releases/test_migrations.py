"""Migrations of a release that fail, hang, are slow or killed: the old release serves, and the reason is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import is_running, left_behind, wait_until
from tests.e2e.releases.rig import ReleasedApp, serves
from tests.e2e.reload.rig import BothLoads, failures

SCRIPT = "migrate.sh"


def boot(app: ReleasedApp, **environ: str) -> None:
    """With a migration command, which has nothing to do in the image's own app."""
    (app.folder / SCRIPT).write_text("exit 0\n")
    app.boot(SUPERVISOR_MIGRATE_COMMAND=f"sh {SCRIPT}", **environ)


def migrating(app: ReleasedApp, text: str, *options: str, **behaviour: Any) -> Path:
    """A release with this migration."""
    return app.built(*options, files={SCRIPT: text}, **behaviour)


BROKEN = {
    "echo no such table >&2; exit 3\n": ("exited with 3", "no such table", "correct what it complains of"),
    "echo waits; exec sleep 3600\n": ("did not end within its deadline of 1 s", "waits"),
    "kill -9 $$\n": ("was killed by SIGKILL", "what it did until then is in the database"),
}


def test_migrations_that_fail_hang_or_are_killed_refuse_the_release_and_what_served_goes_on(app: ReleasedApp) -> None:
    boot(app, SUPERVISOR_MIGRATE_SECONDS="1")
    with BothLoads(app) as load:
        outcomes = [app.apply(migrating(app, text)) for text in BROKEN]
        reports = load.stop()
    assert failures(reports) == {}
    for outcome, why in zip(outcomes, BROKEN.values(), strict=True):
        assert outcome["result"] == "rejected"
        assert all(part in outcome["reason"] for part in why), outcome["reason"]
    assert not app.supervisor.events("app.generation", generation=2)
    assert app.apply(migrating(app, "exit 0\n"))["result"] == "ok"
    assert serves(app) == "5"
    assert app.history() == [("apply", "rejected")] * 3


def test_slow_migration_holds_nobody_up(app: ReleasedApp, soak: bool) -> None:
    seconds = 60 if soak else 2
    boot(app)
    with BothLoads(app) as load:
        outcome = app.apply(migrating(app, f"sleep {seconds}\n"))
        reports = load.stop()
    assert failures(reports) == {}
    assert outcome["result"] == "ok"
    assert outcome["phases"]["migrations"] >= seconds
    assert serves(app) == "2"


def test_migration_that_a_kill_of_the_supervisor_cut_short_and_that_is_not_idempotent_waits_for_a_hand(
    app: ReleasedApp, folder: Path
) -> None:
    """What was begun is in the database: the second try says so, and the old release serves until a hand mends it."""
    database = folder / "database"
    database.mkdir()
    boot(app)
    text = f"mkdir {database}/column || exit 5; echo $$ > {database}/pid; sleep 3600\n"
    archive = migrating(app, text)
    with app.running("release", "apply", str(archive)) as process:
        wait_until("it is half-way", lambda: (database / "pid").exists() and (database / "pid").read_text().strip())
        migration = int((database / "pid").read_text())
        app.supervisor.kill()
        process.communicate(timeout=30)
    app.boot()
    assert not is_running(migration)
    assert len(left_behind(app.supervisor.state)) == 2, "HAProxy and the app"
    assert serves(app) == "1"
    assert app.history() == [("apply", "aborted")]
    assert not list((app.place / "staging").iterdir())
    with BothLoads(app) as load:
        outcome = app.apply(archive)
        reports = load.stop()
    assert failures(reports) == {}
    assert outcome["result"] == "rejected"
    assert "exited with 5" in outcome["reason"]
    assert "File exists" in outcome["reason"]
    (database / "column").rmdir()
    assert app.apply(migrating(app, "exit 0\n"))["result"] == "ok"
    assert serves(app) == "3"


@pytest.mark.soak
def test_supervisor_that_is_stopped_within_a_migration_ends_it_and_the_next_one_serves_the_old_release(
    app: ReleasedApp, folder: Path
) -> None:
    boot(app)
    text = f"echo $$ > {folder}/pid; exec sleep 3600\n"
    with app.running("release", "apply", str(migrating(app, text))) as process:
        wait_until("it migrates", lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip())
        assert app.supervisor.stop() == 0
        process.communicate(timeout=30)
    assert not is_running(int((folder / "pid").read_text()))
    app.boot()
    assert serves(app) == "1"
    assert app.history() == [("apply", "aborted")]


def level(number: int, lowest: int) -> dict[str, str]:
    return {
        SCRIPT: "exit 0\n",
        "release.toml": f"[release]\nschema = {{ level = {number}, min_supported = {lowest} }}\n",
    }


def test_roll_back_to_code_that_cannot_live_on_the_schema_is_refused_under_load(app: ReleasedApp) -> None:
    boot(app)
    first = app.good(files=level(1, 1))
    second = app.good(files=level(2, 1))
    third = app.good(files=level(3, 2))
    with BothLoads(app) as load:
        far = app.run("release", "rollback", first, "--json")
        baked = app.run("release", "rollback", "baked", "--json")
        near = app.run("release", "rollback", "--json")
        too_far = app.run("release", "rollback", "--json")
        again = app.run("release", "rollback", first, "--json")
        reports = load.stop()
    assert failures(reports, may_go_back=True) == {}
    for refused, release in ((far, first), (baked, "baked"), (again, first)):
        assert refused.code == 1
        why = refused.json()["reason"]
        assert f"release {release} cannot live on the database as it is: the schema is at level 3" in why
        assert "needs code of level 2 or above" in why
        assert "apply a newer release instead" in why
    assert near.json()["detail"]["release"] == second
    assert too_far.json()["detail"]["release"] == third
    assert serves(app) == "4"
    assert app.history()[3:] == [("roll back", "ok"), ("roll back", "ok")]
