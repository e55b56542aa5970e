"""A folder of plain SQL against a real Postgres: what runs, what is rolled back, what the errors say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import asyncpg
import pytest

from supervisor.core.errors import MigrationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.migrations import session as session_module
from supervisor.migrations import sql_folder
from supervisor.migrations.lock import lock_key
from supervisor.migrations.sql_folder import SqlFolder
from supervisor.probe.postgres_login import log_in
from tests.migrations.conftest import Database, Write, raised

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

SLEEPING = "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
BARE = "-- supervisor: no-transaction\n"


def opened(folder: Path, dsn: Secret, deadline_seconds: float = 20.0) -> SqlFolder:
    return SqlFolder(folder, dsn, lock_name="test", deadline_seconds=deadline_seconds)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every query of every session opened after this, in order."""
    seen: list[str] = []
    connect = log_in

    async def connect_and_count(dsn: Secret, *, application_name: str) -> session_module.Session:
        connection = await connect(dsn, application_name=application_name)
        connection.add_query_logger(lambda query: seen.append(query.query))
        return connection

    monkeypatch.setattr("supervisor.migrations.session.log_in", connect_and_count)
    return seen


async def test_files_are_applied_once_in_order_with_their_rows(database: Database, write: Write) -> None:
    folder = write({"2_b.sql": "ALTER TABLE t ADD b int;", "1_a.sql": "CREATE TABLE t (a int);", "notes.md": "x"})
    migrations = opened(folder, database.dsn)
    first = await migrations.apply()
    assert (first.kind, first.applied, first.already, first.due) == ("sql", ("1_a.sql", "2_b.sql"), 0, ())
    second = await migrations.apply()
    assert (second.applied, second.already, second.warnings) == ((), 2, ())
    rows = await database.fetch(
        "SELECT name, kind, length(sha256), applied_at >= started_at, elapsed_seconds > 0 "
        "FROM supervisor.migrations ORDER BY name"
    )
    assert rows == [("1_a.sql", "expand", 64, True, True), ("2_b.sql", "expand", 64, True, True)]


async def test_one_query_and_no_lock_when_nothing_is_pending(
    database: Database, write: Write, queries: list[str]
) -> None:
    migrations = opened(write({"1_a.sql": "CREATE TABLE t (a int);"}), database.dsn)
    await migrations.apply()
    queries.clear()
    await migrations.apply()
    assert len(queries) == 1
    assert "FROM supervisor.migrations" in queries[0]


async def test_new_file_is_seen_by_the_next_run_of_the_same_object(database: Database, write: Write) -> None:
    migrations = opened(write({"1_a.sql": "CREATE TABLE t (a int);"}), database.dsn)
    await migrations.apply()
    write({"2_b.sql": "CREATE TABLE u (a int);"})
    assert (await migrations.apply()).applied == ("2_b.sql",)


async def test_failing_file_is_rolled_back_whole_and_the_error_names_its_line(database: Database, write: Write) -> None:
    folder = write(
        {
            "1_a.sql": "CREATE TABLE t (a int);",
            "2_b.sql": "CREATE TABLE u (a int);\n\nINSERT INTO t (a, nope)\n  VALUES (1, 2);",
            "3_c.sql": "CREATE TABLE v (a int);",
        }
    )
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "cannot apply migration '2_b.sql': line 3: `INSERT INTO t (a, nope)`: column \"nope\"" in text
    assert "SQLSTATE 42703" in text
    assert "the file was rolled back: nothing of it is in the database" in text
    assert "applied before it, and staying: 1_a.sql" in text
    assert "migrations only go forward" in text
    assert await database.tables() == {"t"}
    assert await database.fetch("SELECT name FROM supervisor.migrations") == [("1_a.sql",)]
    write({"2_b.sql": "CREATE TABLE u (a int);"})
    assert (await opened(folder, database.dsn).apply()).applied == ("2_b.sql", "3_c.sql")


async def test_line_of_an_error_without_a_position_is_that_of_its_statement(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "-- table\r\nCREATE TABLE t (a int UNIQUE);\r\nINSERT INTO t VALUES (1),\r\n (1);\r\n"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "line 3: `INSERT INTO t VALUES (1),`: duplicate key" in text
    assert "detail: Key (a)=(1) already exists." in text


async def test_line_within_a_statement_is_where_the_server_points(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "SELECT 'ü';\nCREATE TABLE t (\n  a int,\n  b nosuchtype\n);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert 'line 4: `b nosuchtype`: type "nosuchtype" does not exist' in text


async def test_long_file_is_sent_whole_and_its_error_still_has_a_line(
    database: Database, write: Write, queries: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_folder, "WHOLE_FROM", 50)
    rows = "\n".join(f"INSERT INTO t VALUES ({number});" for number in range(60))
    folder = write({"1_a.sql": "CREATE TABLE t (a int);\n" + rows})
    await opened(folder, database.dsn).apply()
    assert await database.value("SELECT count(*) FROM t") == 60
    assert sum("INSERT INTO t" in query for query in queries) == 1
    write({"2_b.sql": rows + "\nINSERT INTO nowhere VALUES (1);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "line 61: `INSERT INTO nowhere VALUES (1);`" in text
    write({"2_b.sql": rows + "\nSELECT 1/0;"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'2_b.sql': division by zero" in text


async def test_error_in_a_function_body_keeps_its_context(database: Database, write: Write) -> None:
    folder = write(
        {"1_a.sql": "SELECT 1;\nDO $$\nBEGIN\n  RAISE EXCEPTION 'no way' USING HINT = 'turn round';\nEND $$;"}
    )
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "line 2: `DO $$`: no way (SQLSTATE P0001; hint: turn round; context: PL/pgSQL function" in text


async def test_error_at_the_commit_rolls_back_and_says_so(database: Database, write: Write) -> None:
    folder = write(
        {
            "1_a.sql": "CREATE TABLE t (a int PRIMARY KEY, b int REFERENCES t DEFERRABLE INITIALLY DEFERRED);\n"
            "INSERT INTO t VALUES (1, 2);"
        }
    )
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'1_a.sql': at its commit: insert or update on table" in text
    assert "nothing of it is in the database" in text
    assert await database.tables() == set()


async def test_contract_files_are_due_and_not_run(database: Database, write: Write) -> None:
    folder = write(
        {
            "1_a.sql": "CREATE TABLE t (a int);",
            "2_b.sql": "-- supervisor: contract\nDROP TABLE t;",
            "3_c.sql": "CREATE TABLE u (a int);",
        }
    )
    report = await opened(folder, database.dsn).apply()
    assert (report.applied, report.due) == (("1_a.sql", "3_c.sql"), ("2_b.sql",))
    assert await database.tables() == {"t", "u"}
    assert (await opened(folder, database.dsn).apply()).due == ("2_b.sql",)


async def test_contract_files_are_run_when_asked_for_and_once(database: Database, write: Write) -> None:
    folder = write(
        {
            "1_a.sql": "CREATE TABLE t (a int, b int);",
            "2_b.sql": "-- supervisor: contract\nALTER TABLE t DROP COLUMN a;",
            "3_c.sql": "CREATE TABLE u (a int);",
            "4_d.sql": "-- supervisor: contract\nDROP TABLE u;",
        }
    )
    migrations = opened(folder, database.dsn)
    assert await migrations.due() == ("2_b.sql", "4_d.sql")
    with pytest.raises(MigrationError, match=r"'1_a.sql', '3_c.sql' is not applied yet and goes first"):
        await migrations.contract()
    assert await database.tables() == set()
    await migrations.apply()
    report = await migrations.contract()
    assert (report.applied, report.due, report.already, report.warnings) == (("2_b.sql", "4_d.sql"), (), 2, ())
    assert await database.tables() == {"t"}
    assert await migrations.due() == ()
    again = await migrations.contract()
    assert (again.applied, again.already) == ((), 4)
    assert await database.fetch("SELECT name, kind FROM supervisor.migrations WHERE kind = 'contract' ORDER BY 1") == [
        ("2_b.sql", "contract"),
        ("4_d.sql", "contract"),
    ]


async def test_contract_file_that_fails_is_still_due_and_says_where(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);", "2_b.sql": "-- supervisor: contract\nDROP TABLE nowhere;"})
    migrations = opened(folder, database.dsn)
    await migrations.apply()
    with pytest.raises(MigrationError, match="line 2: `DROP TABLE nowhere"):
        await migrations.contract()
    assert await migrations.due() == ("2_b.sql",)


async def test_contract_waits_for_the_same_lock(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "-- supervisor: contract\nSELECT 1;"})
    holder = await database.connect()
    await holder.execute("SELECT pg_advisory_lock($1)", lock_key("test"))
    with pytest.raises(MigrationError, match="another supervisor held the migration lock"):
        await opened(folder, database.dsn, deadline_seconds=0.3).contract()


async def test_folder_of_contract_files_alone_touches_nothing(database: Database, write: Write) -> None:
    report = await opened(write({"1_a.sql": "-- supervisor: contract\nSELECT 1;"}), database.dsn).apply()
    assert (report.applied, report.already, report.due) == ((), 0, ("1_a.sql",))
    assert await database.value("SELECT to_regnamespace('supervisor') IS NULL")


async def test_file_without_a_transaction_builds_an_index_concurrently(database: Database, write: Write) -> None:
    statements = "CREATE INDEX CONCURRENTLY i ON t (a); -- one; two\nCREATE INDEX CONCURRENTLY j ON t (b);"
    folder = write({"1_a.sql": "CREATE TABLE t (a int, b int);", "2_b.sql": BARE + statements})
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql", "2_b.sql")
    assert await database.fetch("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND indisvalid") == [(2,)]


async def test_index_concurrently_in_a_transaction_fails_with_the_directive_to_use(
    database: Database, write: Write
) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);\nCREATE INDEX CONCURRENTLY i ON t (a);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "line 2: `CREATE INDEX CONCURRENTLY i ON t (a);`" in text
    assert "put `-- supervisor: no-transaction` in the file's first line" in text


async def test_file_without_a_transaction_that_fails_half_way_stops_the_next_run(
    database: Database, write: Write
) -> None:
    folder = write({"1_a.sql": BARE + "CREATE TABLE t (a int);\nCREATE TABLE t (a int);\nCREATE TABLE u (a int);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "line 3: `CREATE TABLE t (a int);`: relation" in text
    assert "its first 1 of 3 statements are in effect, and the ledger holds it as started" in text
    assert await database.tables() == {"t"}
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'1_a.sql', which runs without a transaction, was started at" in text
    assert "DELETE FROM supervisor.migrations WHERE (app, name) = ('app', '1_a.sql')" in text
    await database.execute("DROP TABLE t; DELETE FROM supervisor.migrations WHERE (app, name) = ('app', '1_a.sql')")
    write({"1_a.sql": BARE + "CREATE TABLE t (a int);"})
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql",)


async def test_idempotent_file_without_a_transaction_runs_again_after_it_failed(
    database: Database, write: Write
) -> None:
    again = "-- supervisor: no-transaction, idempotent\nCREATE TABLE IF NOT EXISTS t (a int);\n"
    folder = write({"1_a.sql": again + "SELECT 1/0;"})
    await raised(opened(folder, database.dsn).apply, MigrationError)
    write({"1_a.sql": again})
    report = await opened(folder, database.dsn).apply()
    assert (report.applied, (await opened(folder, database.dsn).apply()).already) == (("1_a.sql",), 1)


async def test_file_without_a_transaction_may_use_its_own_but_must_end_it(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": BARE + "BEGIN; CREATE TABLE t (a int); COMMIT;"})
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql",)
    write({"2_b.sql": BARE + "BEGIN; CREATE TABLE u (a int);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'2_b.sql': it leaves a transaction of its own open" in text
    assert await database.tables() == {"t"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("CREATE TABLE u (a int);\nCOMMIT;", "line 2: `COMMIT;` would break up the one transaction"),
        ("\\copy t from 'x'", r"line 1: `\copy t from 'x'` is a command of psql"),
        ("COPY t FROM stdin;\n1\n\\.\n", "line 1: COPY ... FROM STDIN"),
    ],
)
async def test_file_that_cannot_run_is_refused_before_any_file_is_run(
    database: Database, write: Write, text: str, words: str
) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);", "2_b.sql": text})
    error = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert f"cannot apply migration '2_b.sql': {words}" in error
    assert await database.tables() == set()


@pytest.mark.parametrize("data", [b"", b"-- nothing\n", b"\xef\xbb\xbf", b"\xef\xbb\xbfSELECT 1;\r\n"])
async def test_odd_but_fit_files_are_applied(database: Database, write: Write, data: bytes) -> None:
    folder = write({"1_a.sql": data, "2_b.sql": BARE.encode() + data.removeprefix(b"\xef\xbb\xbf")})
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql", "2_b.sql")


async def test_symlinks_are_followed_and_folders_are_passed_over(
    database: Database, write: Write, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere.sql").write_text("CREATE TABLE t (a int);")
    folder = write({"0009_folder.sql/x": ""})
    (folder / "1_a.sql").symlink_to(tmp_path / "elsewhere.sql")
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql",)


async def test_vanished_folder_and_file_are_errors_with_their_path(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": ""})
    (folder / "2_b.sql").symlink_to("/nonexistent/file")
    assert "2_b.sql: No such file" in await raised(opened(folder, database.dsn).apply, MigrationError)
    missing = folder / "missing"
    assert "missing: No such file" in await raised(opened(missing, database.dsn).apply, MigrationError)


async def test_changed_file_stops_the_run_until_the_ledger_is_told(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);"})
    await opened(folder, database.dsn).apply()
    write({"1_a.sql": "CREATE TABLE t (a bigint);", "2_b.sql": "CREATE TABLE u (a int);"})
    text = await raised(opened(folder, database.dsn).apply, MigrationError)
    assert "'1_a.sql' was changed after it had been applied" in text
    assert await database.tables() == {"t"}
    await database.execute(text[text.index("`UPDATE") :].strip("`"))
    assert (await opened(folder, database.dsn).apply()).applied == ("2_b.sql",)


async def test_late_file_is_applied_with_a_warning(database: Database, write: Write) -> None:
    folder = write({"3_c.sql": "CREATE TABLE t (a int);"})
    await opened(folder, database.dsn).apply()
    write({"2_b.sql": "CREATE TABLE u (a int);"})
    report = await opened(folder, database.dsn).apply()
    assert (report.applied, len(report.warnings)) == (("2_b.sql",), 1)


async def test_nothing_a_file_sets_reaches_the_next_one_or_the_ledger(database: Database, write: Write) -> None:
    await database.role("weak")
    await database.execute(
        f"GRANT CREATE, TEMP ON DATABASE {database.name} TO weak; GRANT ALL ON SCHEMA public TO weak"
    )
    leak = "SET search_path = s; SET ROLE weak; SET work_mem = '64kB'; CREATE TEMP TABLE x (a int);"
    folder = write(
        {
            "1_a.sql": f"CREATE SCHEMA s; {leak}",
            "2_b.sql": BARE + leak,
            "3_c.sql": "CREATE TABLE t AS SELECT current_setting('work_mem') AS a;",
        }
    )
    assert len((await opened(folder, database.dsn).apply()).applied) == 3
    assert await database.value("SELECT tableowner FROM pg_tables WHERE schemaname = 'public'") == "postgres"
    assert await database.value("SELECT a FROM public.t") != "64kB"


async def test_two_runs_at_once_are_one_run(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int); SELECT pg_sleep(0.2);", "2_b.sql": "CREATE TABLE u (a int);"})
    reports = []

    async def apply() -> None:
        reports.append(await opened(folder, database.dsn).apply())

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(apply)
    assert sorted(report.applied for report in reports) == [(), (), ("1_a.sql", "2_b.sql")]
    assert sorted(report.already for report in reports) == [0, 2, 2]


async def test_index_is_built_concurrently_while_another_run_waits_for_the_lock(
    database: Database, write: Write
) -> None:
    """A waiter blocked in pg_advisory_lock() would hold a snapshot the index waits for: a deadlock."""
    sleep = "SELECT pg_sleep(0.3);\nCREATE INDEX CONCURRENTLY i ON t (a);"
    folder = write({"1_a.sql": "CREATE TABLE t (a int);", "2_b.sql": BARE + sleep})
    async with anyio.create_task_group() as group:
        group.start_soon(opened(folder, database.dsn).apply)
        group.start_soon(opened(folder, database.dsn).apply)
    assert await database.value("SELECT count(*) FROM supervisor.migrations WHERE applied_at IS NOT NULL") == 2


async def test_lock_held_past_the_deadline_is_an_error_that_names_the_holder(database: Database, write: Write) -> None:
    holder = await asyncpg.connect(database.dsn.reveal(), server_settings={"application_name": "the other one"})
    try:
        await holder.execute(f"SELECT pg_advisory_lock({lock_key('test')})")
        folder = write({"1_a.sql": "CREATE TABLE t (a int);"})
        text = await raised(opened(folder, database.dsn, 1.5).apply, MigrationError)
        pid = holder.get_server_pid()
        assert f"another supervisor held the migration lock for all of 1.5 s (database pid {pid}" in text
        assert "application 'the other one'" in text
        assert "nothing was changed" in text
    finally:
        await holder.close()
    assert (await opened(folder, database.dsn).apply()).applied == ("1_a.sql",)


async def test_deadline_cancels_the_statement_on_the_server(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);\nSELECT pg_sleep(60), 'marked';"})
    text = await raised(opened(folder, database.dsn, 2).apply, MigrationError)
    assert "'1_a.sql': line 2: `SELECT pg_sleep(60), 'marked';`: the deadline of 2 s passed while running" in text
    assert "nothing of it is in the database" in text
    assert await database.tables() == set()
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%''marked''%'"
    assert await database.value(f"{others} AND pid <> pg_backend_pid()") == 0


async def test_cancelling_a_run_rolls_back_and_frees_the_lock(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);\nSELECT pg_sleep(60);"})
    async with anyio.create_task_group() as group:
        group.start_soon(opened(folder, database.dsn).apply)
        await database.until(
            "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        )
        with anyio.fail_after(5):
            group.cancel_scope.cancel()
    write({"1_a.sql": "CREATE TABLE t (a int);"})
    assert (await opened(folder, database.dsn, 5).apply()).applied == ("1_a.sql",)


async def test_connection_lost_half_way_says_what_state_the_database_is_in(database: Database, write: Write) -> None:
    folder = write({"1_a.sql": "CREATE TABLE t (a int);\nSELECT pg_sleep(60);"})
    errors: list[str] = []

    async def apply() -> None:
        errors.append(await raised(opened(folder, database.dsn).apply, UnreachableError))

    async with anyio.create_task_group() as group:
        group.start_soon(apply)
        await database.until(f"SELECT count(*) = 1 {SLEEPING}")
        await database.fetch(f"SELECT pg_terminate_backend(pid) {SLEEPING}")
    assert "cannot apply migration '1_a.sql': line 2: `SELECT pg_sleep(60);`: the connection to the data" in errors[0]
    assert "the file was rolled back: nothing of it is in the database" in errors[0]
    assert await database.tables() == set()


KILLED = """
import sys, anyio
from pathlib import Path
from supervisor.core.secret import Secret
from supervisor.migrations.sql_folder import SqlFolder
anyio.run(SqlFolder(Path(sys.argv[1]), Secret(sys.argv[2]), lock_name="test", deadline_seconds=60).apply)
"""


async def test_kill_in_a_transaction_leaves_nothing_and_outside_of_one_a_started_row(
    database: Database, write: Write
) -> None:
    body = "CREATE TABLE {} (a int);\nSELECT pg_sleep(60);"
    folder = write({"1_a.sql": body.format("t")})
    await _kill_while_asleep(database, folder)
    assert await database.tables() == set()
    assert await database.value("SELECT count(*) FROM supervisor.migrations") == 0
    write({"1_a.sql": BARE + body.format("u")})
    await _kill_while_asleep(database, folder)
    assert await database.tables() == {"u"}
    assert "did not end" in await raised(opened(folder, database.dsn).apply, MigrationError)


async def _kill_while_asleep(database: Database, folder: Path) -> None:
    """The server notices by itself that its client is gone, though the statement has a minute to go."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, folder, database.dsn.reveal()], cwd="/")
    try:
        await database.until(f"SELECT count(*) = 1 {SLEEPING}", 20)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    await database.until(f"SELECT count(*) = 0 {SLEEPING}", 20)


async def test_refused_login_is_unreachable_and_shows_no_password(database: Database, write: Write) -> None:
    await database.role("locked", "LOGIN PASSWORD 'right'")
    dsn = database.server.dsn(database.name, "locked", "s3cret%2Fword")
    text = await raised(opened(write({"1_a.sql": ""}), dsn).apply, UnreachableError)
    assert f"cannot connect to the database locked@local socket/{database.name} for its migrations" in text
    assert "SQLSTATE 28P01" in text
    assert "s3cret" not in text


async def test_user_without_the_right_to_make_the_ledger_is_told_what_to_grant(
    database: Database, write: Write
) -> None:
    await database.role("poor", "LOGIN")
    folder = write({"1_a.sql": "SELECT 1;"})
    dsn = database.server.dsn(database.name, "poor")
    text = await raised(opened(folder, dsn).apply, MigrationError)
    assert f"permission denied for database {database.name} (SQLSTATE 42501)" in text
    assert "GRANT the missing right" in text
    await database.execute("CREATE SCHEMA supervisor")
    await database.execute("GRANT ALL ON SCHEMA supervisor TO poor")
    await database.execute(sql_folder._LEDGER)
    await database.execute("GRANT ALL ON supervisor.migrations TO poor")
    assert (await opened(folder, dsn).apply()).applied == ("1_a.sql",)
