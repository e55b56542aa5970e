"""The database saved before a release, and contracted after it: an embedded Postgres, and the commands a user gives."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import request, wait_until
from tests.e2e.releases.stored import FIRST, SECOND, StoredApp, app

__all__ = ["app"]


def serves(app: StoredApp) -> str:
    return request(app.supervisor.port, "/echo")[1]


def test_database_is_saved_before_the_migrations_and_contracted_once_nobody_needs_the_older_shape(
    app: StoredApp,
) -> None:
    app.boot()
    first = app.good_of(FIRST, 1)
    app.query("DELETE FROM notes WHERE id > 400")
    outcome = app.apply(app.release_with(SECOND, 2))
    second = str(outcome["detail"]["release"])
    assert {"snapshot", "migrations"} <= set(outcome["phases"])

    # Of the database as it was: without the column, with the rows of that moment.
    shown = app.shown(second)
    (snapshot,) = shown["snapshots"]
    file = Path(snapshot["file"])
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert snapshot["restore"].endswith(str(file))
    assert "the database is saved before release" in app.supervisor.log()
    app.query("CREATE DATABASE again")
    app.program("pg_restore", "--exit-on-error", "--dbname", "again", str(file), database="again")
    rows = "SELECT count(*), sum(id), md5(string_agg(id || body, ',' ORDER BY id)) FROM notes"
    assert app.query(rows, "again") == app.query(rows)
    columns = "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND NOT attisdropped"
    columns += " AND attrelid = 'notes'::regclass"
    assert (app.query(columns, "again"), app.query(columns)) == ("id,body", "id,body,title")
    password = (app.supervisor.state / "secrets" / "postgres-app").read_text().strip()
    assert password not in app.supervisor.log()

    # Contract: not on trial, not while a way back needs the column, then once.
    assert app.contract()[0] == "rejected"
    assert app.run("release", "confirm").code == 0
    wait_until("what is due is told", lambda: "contract migrations are due: 3_no_body.sql" in app.supervisor.log())
    assert app.shown(second)["due"] == ["3_no_body.sql"]
    assert "contract migrations due: 3_no_body.sql (supervisor release contract)" in app.run("status").out
    result, reason = app.contract()
    assert result == "rejected"
    assert f"{first}, baked" in reason
    assert app.query(columns) == "id,body,title"
    assert app.contract("--give-up-way-back") == ("ok", "applied 3_no_body.sql")
    assert app.query(columns) == "id,title"
    assert "contract migrations due" not in app.run("status").out
    assert app.contract() == ("ok", "no contract migrations are due")
    assert app.shown(second)["due"] == []
    assert "took away what its code may need" in app.shown(first)["given_up"]
    assert app.run("release", "rollback").code == 1
    assert serves(app) == "3"
    assert app.history() == [("apply", "ok"), ("apply", "ok"), ("contract", "ok")]
    assert len(app.snapshots()) == 2


def test_dump_that_fails_leaves_the_old_release_serving_with_the_reason(app: StoredApp) -> None:
    app.boot()
    archive = app.release_with(FIRST, 1)
    old = Path("/usr/lib/postgresql/15/bin/pg_dump")
    scripts = {
        "there is no pg_dump in": None,
        "ended with status 137": "kill -9 $$",
        "server version mismatch": f'exec {old} "$@"' if old.exists() else "echo server version mismatch >&2; exit 1",
    }
    for why, script in scripts.items():
        app.replace_program("pg_dump", script)
        outcome = app.apply(archive)
        assert outcome["result"] == "rejected"
        assert "cannot save the database" in outcome["reason"]
        assert why in outcome["reason"]
        assert app.snapshots() == []
        assert serves(app) == "1"
        assert app.query("SELECT to_regclass('notes') IS NULL") == "t"
        app.replace_program("pg_dump", "")
    app.put_back("pg_dump")
    assert app.apply(archive)["result"] == "ok"
    assert app.history() == [("apply", "rejected")] * 3


def test_kill_in_the_dump_leaves_no_snapshot_after_the_next_start(app: StoredApp) -> None:
    app.boot()
    archive = app.release_with(FIRST, 1)
    app.replace_program("pg_dump", 'for word; do case $word in --file=*) echo half >"${word#*=}"; esac; done; sleep 60')
    with app.running("release", "apply", str(archive)) as process:
        wait_until("the dump is half written", lambda: any(app.place.glob("snapshots/*/database.dump")), limit=30)
        app.supervisor.kill()
        process.communicate(timeout=30)
    assert app.snapshots()
    app.boot()
    assert app.snapshots() == []
    assert serves(app) == "1"
    app.put_back("pg_dump")
    assert app.apply(archive)["result"] == "ok"
    assert len(app.snapshots()) == 1
