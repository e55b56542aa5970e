"""Databases saved for real: whole, ours alone, proved; and everything that must not pass for a snapshot."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, SupervisorError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.engine.resources import ExecResult
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.releases.snapshots import restore_command
from supervisor.services.backend import run_and_quote
from supervisor.services.binaries import find_postgres, system_places
from supervisor.services.dump.container import ContainerPrograms
from supervisor.services.dump.dump import DatabaseDumps, tables_listed
from supervisor.services.dump.local import LocalPrograms
from supervisor.services.dump.login import login_of
from supervisor.services.dump.observe import Facts
from tests.migrations.conftest import Database, Server, database, server

__all__ = ["database", "server"]

pytestmark = pytest.mark.anyio
SCHEMA = """
CREATE TABLE notes (id int PRIMARY KEY, text text);
INSERT INTO notes SELECT n, repeat('note ', n % 50) || n FROM generate_series(1, 2000) AS n;
CREATE SCHEMA "DATA";
CREATE TABLE "DATA"."TABLE" (a int);
CREATE TABLE parts (a int) PARTITION BY RANGE (a);
CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (1) TO (10);
CREATE UNLOGGED TABLE quick (a int);
CREATE TEMPORARY TABLE gone (a int);
CREATE VIEW seen AS SELECT * FROM notes;
"""
FACTS = Facts("00000003-00000001-1", 1, 17)


# What is told to the programs.


@pytest.mark.parametrize(
    ("dsn", "url", "password"),
    [
        ("postgresql://app:s%2Fe%40c@db:5432/app", "postgresql://app@db:5432/app", "s/e@c"),
        ("postgres://app@db/app?sslmode=require&password=a%20b", "postgres://app@db/app?sslmode=require", "a b"),
        ("postgresql:///app?host=/run/a%20b", "postgresql:///app?host=%2Frun%2Fa%20b", None),
        (
            "postgresql://app:x@db/app?schema=public&search_path=a&sslmode=prefer",
            "postgresql://app@db/app?sslmode=prefer",
            "x",
        ),
        ("postgresql://app:x@[::1]:5/app", "postgresql://app@[::1]:5/app", "x"),
    ],
)
def test_password_is_in_the_environment_and_not_in_the_url(dsn: str, url: str, password: str | None) -> None:
    login = login_of(Secret(dsn))
    assert login.url == url
    assert login.environ == ({"PGPASSWORD": password} if password else {})


def test_password_of_a_key_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="use a key without one") as caught:
        login_of(Secret("postgresql://db/app?sslpassword=hush"))
    assert "hush" not in str(caught.value)


def test_only_tables_are_counted() -> None:
    listing = """;
; Archive created at 2026-11-22
215; 1259 16386 TABLE public notes app
216; 1259 16390 TABLE DATA TABLE app
3456; 0 16386 TABLE DATA public notes app
3300; 0 0 TABLE ATTACH public part_1 app
217; 1259 16400 VIEW public seen app
218; 1259 16401 SEQUENCE public s app
"""
    assert tables_listed(listing.splitlines()) == 2


# With a server.


@dataclass
class Place:
    """A database with something in it, and a reaper; `commands` are all that was run."""

    database: Database
    reaper: Reaper
    dsn: Secret
    programs: Path
    commands: list[Command] = field(default_factory=list)

    async def run(self, command: Command) -> tuple[int, str]:
        self.commands.append(command)
        return await run_and_quote(self.reaper, command, Ring(command.name), limit_seconds=60)

    def dumps(self, folder: Path | None = None, limit_seconds: float = 30.0) -> DatabaseDumps:
        programs = LocalPrograms(
            self.dsn, find=lambda _: folder or self.programs, run=self.run, path=os.environ["PATH"]
        )
        return DatabaseDumps(self.dsn, programs, limit_seconds)


@pytest.fixture
async def place(server: Server, database: Database) -> AsyncIterator[Place]:
    await database.execute(SCHEMA)
    async with anyio.create_task_group() as group:
        reaper = Reaper()
        await group.start(reaper.run)
        # Whatever the password is, this server lets everybody in.
        dsn = server.dsn(database.name, password="hush")
        yield Place(database, reaper, dsn, find_postgres(None, places=system_places("")).folder)
        assert reaper.children == []
        group.cancel_scope.cancel()


def replaced(place: Place, folder: Path, script: str) -> Path:
    """A folder with a pg_dump that is this script; `$REAL` is the real one."""
    folder.mkdir()
    (folder / "pg_restore").symlink_to(place.programs / "pg_restore")
    (folder / "pg_dump").write_text(f"#!/bin/sh\nREAL={place.programs}/pg_dump\n{script}\n")
    (folder / "pg_dump").chmod(0o755)
    return folder


@pytest.mark.servers
async def test_dump_is_whole_and_ours_alone_and_gives_back_what_was_there(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "database.dump"
    assert await place.dumps().bytes_needed() > 1_000_000
    dump = await place.dumps().save(file)
    assert (dump.tables, dump.bytes) == (5, file.stat().st_size)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert not any("hush" in word for command in place.commands for word in command.argv)
    dumper, lister = place.commands
    assert dumper.env["PGPASSWORD"] == "hush"
    assert "hush" not in lister.env.values()
    before = await place.database.fetch("SELECT * FROM notes ORDER BY id")
    await place.database.execute("DROP VIEW seen; DROP TABLE notes, quick")
    back = restore_command(file).replace("pg_restore", str(place.programs / "pg_restore"), 1)
    restored = subprocess.run(
        ["/bin/sh", "-c", back], env={"DATABASE_URL": place.dsn.reveal()}, timeout=30, capture_output=True
    )
    assert restored.returncode == 0, restored.stderr
    assert await place.database.fetch("SELECT * FROM notes ORDER BY id") == before
    assert len(before) == 2000


@pytest.mark.servers
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'server version mismatch' >&2; exit 1", "pg_dump ended with status 1: server version mismatch"),
        ("kill -9 $$", "pg_dump ended with status 137: it said nothing"),
        ('exec $REAL "$@" --exclude-table=quick', "the dump has 4 tables, the database 5"),
        ("echo nothing of worth", "pg_restore ended with status 1: .*(not appear to be a valid archive|too short)"),
        ("exec sleep 60", "it was not done within 0.5 s and was stopped; raise SUPERVISOR_RELEASE_SNAPSHOT_SECONDS"),
    ],
    ids=["version", "killed", "one table less", "no dump", "too slow"],
)
async def test_dump_that_fails_is_told_with_its_reason(place: Place, tmp_path: Path, script: str, why: str) -> None:
    folder = replaced(place, tmp_path / "bin", script)
    limit = 0.5 if "sleep" in script else 30.0
    with pytest.raises(SupervisorError, match=why):
        await place.dumps(folder, limit).save(tmp_path / "database.dump")
    assert not (tmp_path / "database.list").exists()


@pytest.mark.servers
async def test_dump_is_of_one_moment_whatever_is_changed_meanwhile(place: Place, tmp_path: Path) -> None:
    change = f'{place.programs}/psql "{place.dsn.reveal()}" -qc "CREATE TABLE late (a int)"; exec $REAL "$@"'
    folder = replaced(place, tmp_path / "bin", change)
    assert (await place.dumps(folder).save(tmp_path / "database.dump")).tables == 5
    assert "late" in await place.database.tables()


@pytest.mark.servers
async def test_dump_without_its_program_says_where_it_was_looked_for(place: Place, tmp_path: Path) -> None:
    with pytest.raises(SupervisorError, match=f"there is no pg_dump in '{tmp_path}'"):
        await place.dumps(tmp_path).save(tmp_path / "database.dump")


async def test_database_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    dsn = Secret("postgresql://app:hush@127.0.0.1:1/app")
    programs = LocalPrograms(dsn, find=lambda _: tmp_path, run=cast(Any, None), path="")
    with pytest.raises(UnreachableError, match="cannot save the database: ") as caught:
        await DatabaseDumps(dsn, programs, 5).save(tmp_path / "database.dump")
    assert "hush" not in str(caught.value)


# In a container.


class Containers:
    """Of an engine: one container, whose pg_dump writes `dump`."""

    def __init__(self, dump: bytes = b"PGDMP", code: int = 0, said: bytes = b"") -> None:
        self.dump = dump
        self.code = code
        self.said = said
        self.runs: list[list[str]] = []
        self.files: list[bytes] = []

    async def exec_to(self, name: str, argv: list[str], take: Any, *, env: dict[str, str]) -> ExecResult:
        self.runs.append([*argv, *(word for word in sorted(env) if word.startswith("PG"))])
        await take(self.dump)
        return ExecResult(self.code, b"", self.said)

    async def put_archive(self, name: str, folder: str, tar: Any) -> None:
        self.files.append(tar.read())

    async def exec(self, name: str, argv: list[str], *, timeout_seconds: float) -> ExecResult:
        self.runs.append(argv)
        return ExecResult(0, b"215; 1259 16386 TABLE public notes app\n", b"")


def in_container(containers: Containers, container: str | None = "c") -> ContainerPrograms:
    class FakeEngine:
        pass

    engine = FakeEngine()
    engine.containers = containers  # type: ignore[attr-defined]
    return ContainerPrograms(
        engine=cast(Any, engine), container=lambda: container, role="app", password=Secret("hush"), limit_seconds=900
    )


async def test_dump_in_a_container_streams_out_and_is_listed_there(tmp_path: Path) -> None:
    containers = Containers()
    file = tmp_path / "t1" / "database.dump"
    file.parent.mkdir()
    programs = in_container(containers)
    await programs.dump(FACTS, file)
    assert file.read_bytes() == b"PGDMP"
    assert await programs.tables(FACTS, file) == 1
    dumped, listed, removed = containers.runs
    assert dumped[:4] == ["timeout", "900", "pg_dump", "--format=custom"]
    assert {"--snapshot=00000003-00000001-1", "PGPASSWORD"} <= set(dumped)
    assert listed == ["pg_restore", "--list", "/tmp/supervisor-t1.dump"]
    assert removed == ["rm", "-f", "/tmp/supervisor-t1.dump"]
    assert b"supervisor-t1.dump" in containers.files[0]
    assert b"PGDMP" in containers.files[0]
    assert [path.name for path in file.parent.iterdir()] == [file.name]


async def test_dump_in_a_container_that_fails_shows_its_words_and_no_password(tmp_path: Path) -> None:
    containers = Containers(code=1, said=b"pg_dump: error: hush is no password")
    with pytest.raises(SupervisorError, match=r"ended with status 1: pg_dump: error: \*\*\* is no password"):
        await in_container(containers).dump(FACTS, tmp_path / "database.dump")
    with pytest.raises(OSError, match="No space left"):
        await in_container(Containers(bytes(100_000))).dump(FACTS, Path("/dev/full"))
    with pytest.raises(UnreachableError, match="the container of Postgres does not run"):
        await in_container(containers, None).dump(FACTS, tmp_path / "database.dump")
