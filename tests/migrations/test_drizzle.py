"""A Drizzle folder against a real Postgres; the rules are those of drizzle-orm's own migrator."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, MigrationError
from supervisor.core.secret import Secret
from supervisor.migrations import session as session_module
from supervisor.migrations.drizzle import DrizzleFolder, Entry, decide, parse_journal, statements_of
from supervisor.migrations.folder import open_folder
from supervisor.migrations.sql_folder import SqlFolder
from supervisor.probe.postgres_login import log_in
from tests.migrations.conftest import Database, Write, raised

pytestmark = pytest.mark.anyio
servers = pytest.mark.servers

USERS = (
    'CREATE TABLE "users" (\n\t"id" serial PRIMARY KEY\n);\n--> statement-breakpoint\nCREATE TABLE "posts" ("id" int);'
)
NAMES = 'ALTER TABLE "users" ADD COLUMN "name" text;'
TABLE = """
CREATE SCHEMA drizzle;
CREATE TABLE drizzle.__drizzle_migrations (id SERIAL PRIMARY KEY, hash text NOT NULL, created_at bigint);
"""


def journal(*entries: tuple[str, int], dialect: str = "postgresql") -> str:
    listed = [
        {"idx": idx, "version": "7", "when": when, "tag": tag, "breakpoints": True}
        for idx, (tag, when) in enumerate(entries)
    ]
    return json.dumps({"version": "7", "dialect": dialect, "entries": listed})


def opened(folder: Path, dsn: Secret, deadline_seconds: float = 20.0) -> DrizzleFolder:
    return DrizzleFolder(folder, dsn, lock_name="test", deadline_seconds=deadline_seconds)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def two(write: Write) -> Path:
    return write(
        {"meta/_journal.json": journal(("0000_a", 1000), ("0001_b", 2000)), "0000_a.sql": USERS, "0001_b.sql": NAMES}
    )


def entry(tag: str, when: int, text: str | None = "x") -> Entry:
    return Entry(tag, when, None if text is None else text.encode())


def test_entry_is_pending_when_it_is_newer_than_the_newest_row() -> None:
    entries = [entry("a", 1000), entry("b", 2000), entry("c", 1500)]
    rows = [(sha256("x"), 1500), (sha256("x"), 1000)]
    assert [e.tag for e in decide(entries, rows).pending] == ["b"]
    assert [e.tag for e in decide(entries, []).pending] == ["a", "b", "c"]


def test_row_without_a_time_counts_as_time_zero_as_in_javascript() -> None:
    assert [e.tag for e in decide([entry("a", 1000)], [("x", None), ("x", 5000)]).pending] == ["a"]


def test_hash_mismatch_skipped_entry_and_missing_file_are_warnings() -> None:
    entries = [entry("a", 1000, "changed"), entry("b", 1500), entry("c", 2000, None)]
    plan = decide(entries, [(sha256("x"), 2000), (sha256("x"), 1000)])
    assert (plan.pending, plan.already) == ((), 3)
    assert [warning.split(":")[0].split(" changed")[0] for warning in plan.warnings] == [
        "Drizzle's rule skips 'b.sql'",
        "the journal names 'c.sql', applied before, and the file is missing",
        "'a.sql'",
    ]


def test_missing_file_of_a_pending_entry_is_an_error() -> None:
    with pytest.raises(MigrationError, match=r"'a.sql': the journal names it and the file is missing"):
        decide([entry("a", 1000, None)], [])


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"entries": [{"tag": "a"}]}', b'{"entries": 5}', b"\xff"])
def test_broken_journal_is_an_error(data: bytes) -> None:
    with pytest.raises(MigrationError, match="cannot read Drizzle journal 'j'"):
        parse_journal(data, "j")


def test_journal_of_another_database_is_refused() -> None:
    with pytest.raises(MigrationError, match="its dialect is 'sqlite'"):
        parse_journal(journal(dialect="sqlite").encode(), "j")


def test_statements_are_cut_at_breakpoints_with_or_without_semicolons() -> None:
    text = "SELECT 1\n--> statement-breakpoint\nSELECT 2; SELECT 3;--> statement-breakpoint\n\n-- end\nSELECT 4"
    found = list(statements_of(text))
    assert [(s.text, s.line) for s in found] == [("SELECT 1", 1), ("SELECT 2;", 3), ("SELECT 3;", 3), ("SELECT 4", 6)]
    assert all(text[s.offset :].startswith(s.text) for s in found)


@servers
async def test_folder_is_applied_with_drizzles_own_rows(database: Database, write: Write) -> None:
    folder = two(write)
    report = await opened(folder, database.dsn).apply()
    assert (report.kind, report.applied, report.already) == ("drizzle", ("0000_a", "0001_b"), 0)
    assert await database.tables() == {"users", "posts"}
    assert await database.fetch("SELECT id, hash, created_at FROM drizzle.__drizzle_migrations ORDER BY id") == [
        (1, sha256(USERS), 1000),
        (2, sha256(NAMES), 2000),
    ]
    again = await opened(folder, database.dsn).apply()
    assert (again.applied, again.already, again.warnings) == ((), 2, ())


@servers
async def test_one_query_when_nothing_is_pending(
    database: Database, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = opened(two(write), database.dsn)
    await migrations.apply()
    seen: list[str] = []
    connect = log_in

    async def connect_and_count(dsn: Secret, *, application_name: str) -> session_module.Session:
        connection = await connect(dsn, application_name=application_name)
        connection.add_query_logger(lambda query: seen.append(query.query))
        return connection

    monkeypatch.setattr("supervisor.migrations.session.log_in", connect_and_count)
    await migrations.apply()
    assert len(seen) == 1


@servers
async def test_existing_database_with_other_hashes_goes_on_with_a_warning(database: Database, write: Write) -> None:
    await database.execute(TABLE + "INSERT INTO drizzle.__drizzle_migrations (hash, created_at) VALUES ('old', 1000)")
    await database.execute('CREATE TABLE "users" (id int)')
    report = await opened(two(write), database.dsn).apply()
    assert (report.applied, report.already) == (("0001_b",), 1)
    assert report.warnings == (
        "'0000_a.sql' changed after it had been applied; as with Drizzle itself, this has no effect",
    )


@servers
async def test_failure_rolls_all_pending_back_and_names_file_and_line(database: Database, write: Write) -> None:
    folder = two(write)
    write({"0001_b.sql": 'SELECT 1;\n--> statement-breakpoint\nALTER TABLE "users"\n  ADD COLUMN "id" int;'})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert 'cannot apply migration \'0001_b.sql\': line 3: `ALTER TABLE "users"`: column "id"' in text
    assert "SQLSTATE 42701" in text
    assert "all pending migrations were rolled back: the database is as it was before" in text
    assert "staying" not in text
    assert await database.tables() == set()


@servers
async def test_file_that_commits_is_let_through_and_its_failure_is_told_as_it_is(
    database: Database, write: Write
) -> None:
    folder = two(write)
    write({"0000_a.sql": USERS + "\nCOMMIT;", "0001_b.sql": "SELECT 1/0;"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'0000_a.sql' ends the transaction itself, so what ran up to there stays" in text
    assert "all pending" not in text
    write({"0001_b.sql": NAMES})
    assert (await opened(folder, database.dsn).apply()).applied == ("0001_b",)


@servers
async def test_two_runs_at_once_are_one_run(database: Database, write: Write) -> None:
    folder = two(write)
    write({"0001_b.sql": "SELECT pg_sleep(0.2);"})
    reports = []

    async def apply() -> None:
        reports.append(await opened(folder, database.dsn).apply())

    async with anyio.create_task_group() as group:
        group.start_soon(apply)
        group.start_soon(apply)
    assert sorted(report.applied for report in reports) == [(), ("0000_a", "0001_b")]
    assert await database.value("SELECT count(*) FROM drizzle.__drizzle_migrations") == 2


def test_open_folder_picks_the_kind(write: Write, tmp_path: Path) -> None:
    dsn = Secret("postgresql://u@/d")
    plain = write({"1_a.sql": ""})
    assert isinstance(open_folder(plain, dsn, lock_name="x", deadline_seconds=1), SqlFolder)
    write({"meta/_journal.json": journal()})
    assert isinstance(open_folder(plain, dsn, lock_name="x", deadline_seconds=1), DrizzleFolder)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("missing", "it does not exist"),
        ("file", "not a directory"),
        ("empty", "it is empty"),
        ("docs", "none of its 1"),
    ],
)
def test_open_folder_refuses_a_folder_without_migrations(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.md").touch()
    with pytest.raises(ConfigurationError, match=f"{name}': {why}.*SUPERVISOR_MIGRATE_DIR"):
        open_folder(tmp_path / name, Secret("postgresql://u@/d"), lock_name="x", deadline_seconds=1)


async def test_drizzle_folder_has_no_contract_migrations_and_says_so(tmp_path: Path) -> None:
    migrations = opened(tmp_path, Secret("postgresql://nobody@127.0.0.1:1/none"))
    assert await migrations.due() is None  # type: ignore[func-returns-value]
    assert "has no such kind" in await raised(migrations.contract, MigrationError)
