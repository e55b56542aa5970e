"""A migration command: run as a child, under the lock, its output kept."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from supervisor.core.errors import MigrationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.migrations.command import CommandMigrations, SpawnedRun
from supervisor.migrations.lock import describe_holder, lock_key
from supervisor.migrations.model import Report
from supervisor.migrations.session import application_name
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from tests.migrations.conftest import Database, raised

pytestmark = pytest.mark.anyio
servers = pytest.mark.servers


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    found = Reaper()
    async with anyio.create_task_group() as group:
        await group.start(found.run)
        yield found
        assert found.children == []
        group.cancel_scope.cancel()


class Rig:
    """Commands of one test, sharing a folder and a ring."""

    def __init__(self, reaper: Reaper, folder: Path) -> None:
        self.reaper = reaper
        self.folder = folder
        self.ring = Ring("migrate")

    def migrations(
        self, script: str, dsn: Secret | None = None, *, deadline_seconds: float = 20.0
    ) -> CommandMigrations:
        argv = ("/bin/sh", "-c", script)
        env = {"PATH": os.environ["PATH"]}
        run = SpawnedRun(
            self.reaper,
            lambda: Command(name="migrate", argv=argv, env=env, cwd=str(self.folder)),
            self.ring,
            grace_seconds=0.5,
        )
        return CommandMigrations(run, dsn, lock_name="test", deadline_seconds=deadline_seconds)

    def runs(self) -> int:
        """How many times the commands wrote to the file `runs`."""
        return (self.folder / "runs").read_text().count("ran") if (self.folder / "runs").exists() else 0


@pytest.fixture
async def rig(reaper: Reaper, tmp_path: Path) -> Rig:
    return Rig(reaper, tmp_path)


async def test_command_without_a_database_runs_each_time_and_keeps_its_output(rig: Rig) -> None:
    migrations = rig.migrations("echo ran >> runs; echo hello; echo oops >&2")
    report = await migrations.apply()
    assert (report.kind, report.already) == ("command", 0)
    assert report.applied == ("/bin/sh -c 'echo ran >> runs; echo hello; echo oops >&2'",)
    await migrations.apply()
    assert rig.runs() == 2
    assert sorted((line.text, line.stream) for line in rig.ring.tail(4)[:2]) == [
        ("hello", "stdout"),
        ("oops", "stderr"),
    ]


async def test_command_has_no_contract_migrations_and_says_so(rig: Rig) -> None:
    migrations = rig.migrations("echo ran >> runs")
    assert await migrations.due() is None  # type: ignore[func-returns-value]
    assert "run by hand what it has for that" in await raised(migrations.contract, MigrationError)
    assert rig.runs() == 0


async def test_failing_command_shows_its_last_lines_and_no_earlier_runs(rig: Rig) -> None:
    rig.ring.add("from an earlier run")
    text = await raised(rig.migrations("seq 1 100; echo at last >&2; exit 3").apply, MigrationError)
    assert "it exited with 3" in text
    lines = text.splitlines()[1:]
    assert len(lines) == 20
    assert {"  100", "  at last"} <= set(lines)
    assert "earlier" not in await raised(rig.migrations("exit 1").apply, MigrationError)


async def test_last_words_of_a_long_output_are_in_the_error(rig: Rig) -> None:
    text = await raised(rig.migrations("seq 1 200000; exit 1").apply, MigrationError)
    assert text.splitlines()[-1] == "  200000"


async def test_command_killed_by_a_signal_says_which(rig: Rig) -> None:
    text = await raised(rig.migrations("kill -9 $$").apply, MigrationError)
    assert "it was killed by SIGKILL;" in text
    assert "it wrote nothing" in text


async def test_command_that_cannot_start_is_an_error_that_says_why(rig: Rig) -> None:
    command = Command(name="migrate", argv=("/nonexistent/tool",), env={})
    run = SpawnedRun(rig.reaper, lambda: command, rig.ring)
    migrations = CommandMigrations(run, None, lock_name="test", deadline_seconds=5)
    text = await raised(migrations.apply, MigrationError)
    assert "cannot start 'migrate': no program '/nonexistent/tool'" in text


async def test_deadline_stops_the_command_and_all_it_started(rig: Rig) -> None:
    script = "trap 'echo stopping; exit 0' TERM; sleep 60 & echo started; wait"
    with anyio.fail_after(10):
        text = await raised(rig.migrations(script, deadline_seconds=2).apply, MigrationError)
    assert "did not end within its deadline of 2 s and was stopped" in text
    assert text.splitlines()[1:] == ["  started", "  stopping"]


async def test_command_that_ignores_its_stop_signal_is_killed(rig: Rig) -> None:
    with anyio.fail_after(10):
        text = await raised(rig.migrations("trap '' TERM; sleep 60", deadline_seconds=0.2).apply, MigrationError)
    assert "was stopped" in text


async def test_cancelling_stops_the_command(rig: Rig) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(rig.migrations("echo started; sleep 60").apply)
        with anyio.fail_after(10):
            await rig.ring.wait_newer(0)
            group.cancel_scope.cancel()
    assert rig.reaper.children == []


@servers
async def test_command_runs_under_the_lock_and_notes_its_success(rig: Rig, database: Database) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(rig.migrations("echo started; sleep 0.3", database.dsn).apply)
        with anyio.fail_after(10):
            await rig.ring.wait_newer(0)
        assert not await database.value("SELECT pg_try_advisory_lock($1)", lock_key("test"))
    assert await database.fetch("SELECT lock_name, command FROM supervisor.commands") == [
        ("test", "/bin/sh -c 'echo started; sleep 0.3'")
    ]
    assert (await rig.migrations("echo started; sleep 0.3", database.dsn).apply()).already == 0


@servers
async def test_two_at_once_run_the_command_once(rig: Rig, database: Database) -> None:
    reports: list[Report] = []

    async def apply() -> None:
        reports.append(await rig.migrations("echo ran >> runs; sleep 0.3", database.dsn).apply())

    async with anyio.create_task_group() as group:
        group.start_soon(apply)
        group.start_soon(apply)
    assert rig.runs() == 1
    assert sorted(report.already for report in reports) == [0, 1]


@servers
@pytest.mark.parametrize("first", ["echo ran >> runs; sleep 0.3; exit 1", "echo ran >> runs; sleep 0.3"])
async def test_waiter_runs_the_command_itself_when_the_first_failed_or_was_another(
    rig: Rig, database: Database, first: str
) -> None:
    async def run_first() -> None:
        if "exit 1" in first:
            await raised(rig.migrations(first, database.dsn).apply, MigrationError)
        else:
            await rig.migrations(first, database.dsn).apply()

    async with anyio.create_task_group() as group:
        group.start_soon(run_first)
        with anyio.fail_after(10):
            while not rig.runs():
                await anyio.sleep(0.01)
        report = await rig.migrations("echo ran >> runs # the other", database.dsn).apply()
    assert (rig.runs(), report.already) == (2, 0)


@servers
async def test_success_from_before_the_wait_does_not_count(rig: Rig, database: Database) -> None:
    migrations = rig.migrations("echo ran >> runs", database.dsn)
    await migrations.apply()
    holder = await database.connect()
    await holder.execute(f"SELECT pg_advisory_lock({lock_key('test')})")
    async with anyio.create_task_group() as group:
        group.start_soon(migrations.apply)
        await database.until(
            f"SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = '{application_name()}' "
            "AND datname = current_database() AND query LIKE '%pg_locks%'"
        )
        await holder.execute("SELECT pg_advisory_unlock_all()")
    assert rig.runs() == 2


@servers
async def test_lock_held_past_the_deadline_is_an_error_that_names_the_holder(rig: Rig, database: Database) -> None:
    holder = await database.connect()
    await holder.execute(f"SELECT pg_advisory_lock({lock_key('test')})")
    text = await raised(rig.migrations("echo ran >> runs", database.dsn, deadline_seconds=1.5).apply, MigrationError)
    assert (
        f"another supervisor held the migration lock for all of 1.5 s (database pid {holder.get_server_pid()}" in text
    )
    assert rig.runs() == 0


@servers
async def test_connection_lost_while_the_command_runs_is_a_warning(rig: Rig, database: Database) -> None:
    reports: list[Report] = []

    async def apply() -> None:
        reports.append(await rig.migrations("echo started; sleep 0.3", database.dsn).apply())

    async with anyio.create_task_group() as group:
        group.start_soon(apply)
        with anyio.fail_after(10):
            await rig.ring.wait_newer(0)
        ended = await database.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1", application_name()
        )
        assert ended == [(True,)]
    assert "succeeded, but that could not be noted" in reports[0].warnings[0]


async def test_database_that_is_not_there_is_unreachable_and_runs_nothing(rig: Rig, tmp_path: Path) -> None:
    dsn = Secret(f"postgresql://app:s3cret@/d?host={tmp_path}")
    text = await raised(rig.migrations("echo ran >> runs", dsn).apply, UnreachableError)
    assert "cannot connect to the database app@" in text
    assert "s3cret" not in text
    assert rig.runs() == 0


def test_holder_is_described_by_what_may_be_seen_of_it() -> None:
    row = {"pid": 7, "application_name": "x", "client": "10.0.0.5/32", "state": "active", "since": "now"}
    assert describe_holder(row) == "database pid 7, application 'x', from 10.0.0.5, active since now"
    assert describe_holder(dict.fromkeys(row) | {"pid": 7}) == "database pid 7"
    assert describe_holder(None) == ""


def test_application_name_fits_postgres_and_ends_with_our_pid() -> None:
    assert len(application_name().encode()) <= 63
    assert application_name().endswith(f"pid {os.getpid()}")
