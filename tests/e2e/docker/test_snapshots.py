"""The database of a container of ours saved before a release, by the programs that are in that container."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.releases.snapshots import DUMP_FILE
from tests.e2e.docker.conftest import Keeper
from tests.e2e.docker.echo import EchoStack
from tests.e2e.docker.releases import deploy, release, serves, version_of
from tests.e2e.docker.stack import Kind
from tests.engine_rig.engine import Engine

pytestmark = pytest.mark.engine
NOTES = """CREATE TABLE notes (id int PRIMARY KEY, body text);
INSERT INTO notes SELECT n, 'note ' || n FROM generate_series(1, 500) AS n;"""
FIRST = {"migrations/1_notes.sql": NOTES}
SECOND = {
    **FIRST,
    "migrations/2_title.sql": "ALTER TABLE notes ADD COLUMN title text;",
    "migrations/3_no_body.sql": "-- supervisor: contract\nALTER TABLE notes DROP COLUMN body;",
}
_CONTENT = "SELECT count(*), md5(string_agg(id || body, ',' ORDER BY id)) FROM notes"


@pytest.fixture(scope="class")
def stored_keeper(engine: Engine) -> Iterator[Keeper[EchoStack]]:
    made = Keeper(
        engine,
        EchoStack,
        SUPERVISOR_RELEASE_UNSIGNED="allow",
        SUPERVISOR_RELEASE_BAKE_SECONDS="0.3",
        SUPERVISOR_APP_START_SECONDS="30",
    )
    try:
        yield made
    finally:
        made.end()


class Snapshots:
    """Tests over one stack that they share: each finds it whole, and leaves it running."""

    kind: Kind

    @pytest.fixture
    def stack(self, stored_keeper: Keeper[EchoStack]) -> EchoStack:
        return stored_keeper.whole(self.kind)

    def test_database_is_saved_by_its_own_container_and_comes_back(self, stack: EchoStack, tmp_path: Path) -> None:
        assert deploy(stack, stored(tmp_path, FIRST)) == 0
        stack.inside("supervisor", "release", "confirm")
        before = query(stack, _CONTENT)
        second = stored(tmp_path, SECOND)
        assert deploy(stack, second) == 0
        stack.inside("supervisor", "release", "confirm")
        (snapshot,) = shown(stack)["snapshots"]
        assert snapshot["tables"] == 2  # the notes, and the ledger
        assert stack.inside("stat", "--format", "%a %u %s", snapshot["file"]) == f"600 0 {snapshot['bytes']}"
        query(stack, "CREATE DATABASE again")
        restore(stack, snapshot["file"], tmp_path)
        assert query(stack, _CONTENT, "again") == before
        assert query(stack, "SELECT count(*) FROM pg_attribute WHERE attname = 'title'", "again") == "0"
        postgres = stack.containers()["postgres"]
        assert "supervisor-" not in stack.docker("exec", postgres, "ls", "/tmp")
        assert serves(stack) == version_of(second)
        ended = stack.inside("supervisor", "release", "contract", "--give-up-way-back")
        assert "applied 3_no_body.sql" in ended

    def test_dump_that_fails_in_the_container_leaves_the_old_release(self, stack: EchoStack, tmp_path: Path) -> None:
        before = serves(stack)
        postgres = stack.containers()["postgres"]
        shadow = "/usr/local/sbin/pg_dump"  # the first place that is looked into
        script = f"printf '#!/bin/sh\\necho broken >&2; exit 9\\n' >{shadow} && chmod 755 {shadow}"
        stack.docker("exec", postgres, "sh", "-c", script)
        try:
            assert deploy(stack, stored(tmp_path, SECOND)) == 1
        finally:
            stack.docker("exec", postgres, "rm", shadow)
        line = json.loads(stack.inside("supervisor", "release", "history", "--json"))["history"][-1]
        assert line["outcome"] == "rejected"
        assert "pg_dump in the container of Postgres ended with status 9: broken" in line["reason"]
        assert serves(stack) == before
        found = stack.inside("find", "/var/lib/supervisor/releases/app/snapshots", "-name", DUMP_FILE).splitlines()
        assert all(each in json.dumps(kept(stack)) for each in found)


class TestSnapshotsInDind(Snapshots):
    kind = Kind.DIND


class TestSnapshotsOverTheSocket(Snapshots):
    kind = Kind.SOCKET


def stored(folder: Path, files: dict[str, str]) -> Path:
    """A release with these files that asks for a snapshot; gives its archive."""
    return release(folder, "--migrations-snapshot", "--migrations-folder", "migrations", files=files)


def shown(stack: EchoStack) -> dict[str, Any]:
    """The active release, with all that is known of it."""
    rows = json.loads(stack.inside("supervisor", "release", "list", "--json"))
    (active,) = (row["release"] for row in rows if row["use"] == "active")
    found: dict[str, Any] = json.loads(stack.inside("supervisor", "release", "show", active))
    return found


def kept(stack: EchoStack) -> list[str]:
    """The files of all snapshots of releases that are there."""
    rows = json.loads(stack.inside("supervisor", "release", "list", "--json"))
    documents = [json.loads(stack.inside("supervisor", "release", "show", row["release"])) for row in rows]
    return [each["file"] for document in documents for each in document["snapshots"]]


def query(stack: EchoStack, sql: str, database: str = "") -> str:
    login = ("-U", stack.name, "-d", database or stack.name)
    return stack.docker("exec", stack.containers()["postgres"], "psql", "-XAtqc", sql, *login)


def restore(stack: EchoStack, dump: str, folder: Path) -> None:
    """As the guide says, into the database `again`."""
    command = f"pg_restore -U {stack.name} -d again --exit-on-error"
    postgres = stack.containers()["postgres"]
    if stack.kind is Kind.DIND:
        stack.inside("sh", "-c", f"docker exec -i {postgres} {command} <{dump}")
        return
    copy = folder / DUMP_FILE
    stack.share.engine.run("cp", f"{stack.container}:{dump}", copy)
    with copy.open("rb") as file:
        argv = ["docker", "exec", "-i", postgres, *command.split()]
        ended = subprocess.run(argv, env=stack.share.engine.environ, stdin=file, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
