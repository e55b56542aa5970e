"""The embedded Postgres, for real: first boot, later boots, kills in between, and what must not be accepted."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import anyio
import asyncpg
import pytest

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer
from supervisor.process.child import Child, Command, Identity
from supervisor.services.embedded.access import POSTGRES_UID
from supervisor.services.embedded.cluster import owner_sql, require_usable_name
from supervisor.services.embedded.postgres import EmbeddedPostgres, data_major, drop_stale_pid_file
from tests.services.embedded_rig import Rig, answered, open_rig, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


async def start(rig: Rig, postgres: EmbeddedPostgres) -> Child:
    child = rig.spawn(await postgres.prepare())
    await answered(postgres.probe, Answer.GOOD)
    return child


async def query(postgres: EmbeddedPostgres, sql: str) -> object:
    connection = await asyncpg.connect(postgres.dsn.reveal(), ssl=False)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_first_boot_makes_a_database_the_app_owns_and_the_second_boot_finds_its_rows() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres(stack="my-app.1")
        child = await start(rig, postgres)
        assert (await postgres.probe()).peer_pid == child.pid
        await query(postgres, "CREATE TABLE public.notes AS SELECT 'kept' AS note")
        assert await query(postgres, "SELECT current_user || ' ' || current_database()") == "my-app.1 my-app.1"
        assert await query(postgres, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is False
        assert await query(postgres, "SHOW data_checksums") == "on"
        exit = await child.stop(grace_seconds=20)
        assert exit.clean
        assert "database system is shut down" in text_of(child)

        rig.new_boot()
        rig.commands.clear()
        again = rig.postgres(stack="my-app.1")
        child = await start(rig, again)
        assert rig.commands == []
        assert await query(again, "SELECT note FROM notes") == "kept"
        assert "recovery" not in text_of(child)


async def test_second_prepare_takes_milliseconds() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        await postgres.prepare()
        started = time.perf_counter()
        await postgres.prepare()
        # Generous by a factor of twenty: it only has to notice a spawned process or a walk over the data.
        assert time.perf_counter() - started < 0.5
        assert len(rig.commands) == 3


async def test_no_password_is_in_arguments_environment_or_files_others_can_read() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        command = await postgres.prepare()
        app, superuser = (rig.secrets.get_or_make(name).reveal() for name in ("postgres-app", "postgres-superuser"))
        assert app != superuser
        for one in (*rig.commands, command):
            assert app not in repr(one)
            assert superuser not in repr(one)
        assert stat.S_IMODE(postgres.data.stat().st_mode) == 0o700
        for name in ("postgres-app", "postgres-superuser"):
            assert stat.S_IMODE(rig.secrets.path(name).stat().st_mode) == 0o600


async def test_data_belongs_to_the_user_the_server_runs_as() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        child = await start(rig, postgres)
        assert postgres.data.stat().st_uid == Path(f"/proc/{child.pid}").stat().st_uid
        if os.geteuid() == 0:
            assert postgres.data.stat().st_uid != 0


@needs_root
async def test_reserved_uid_without_an_account_works() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        postgres.identity = Identity(POSTGRES_UID, POSTGRES_UID)
        child = await start(rig, postgres)
        assert Path(f"/proc/{child.pid}").stat().st_uid == POSTGRES_UID
        owners = {path.lstat().st_uid for path in postgres.data.rglob("*")}
        assert owners == {POSTGRES_UID}


@needs_root
async def test_data_of_another_uid_is_taken_over() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        postgres.identity = Identity(POSTGRES_UID, POSTGRES_UID)
        await postgres.prepare()
        other = rig.postgres()
        assert other.identity != postgres.identity
        child = await start(rig, other)
        assert (await child.stop(grace_seconds=20)).clean


@pytest.mark.parametrize("step", range(3))
async def test_kill_in_the_middle_of_the_first_boot_leaves_the_next_one_to_start_over(step: int) -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()

        def kill_at_step(command: Command) -> None:
            if len(rig.commands) == step + 1:
                raise KeyboardInterrupt

        rig.on_run = kill_at_step
        with pytest.raises(KeyboardInterrupt):
            await postgres.prepare()
        assert not postgres.data.exists()
        assert postgres.data.with_name("data.new").exists()

        rig.on_run = lambda _: None
        again = rig.postgres()
        await start(rig, again)
        assert not postgres.data.with_name("data.new").exists()


async def test_cancelled_initdb_leaves_no_process_and_the_next_boot_works() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        async with anyio.create_task_group() as group:
            rig.on_run = lambda _: group.cancel_scope.cancel()
            group.start_soon(postgres.prepare)
        assert rig.reaper.children == []
        rig.on_run = lambda _: None
        await start(rig, postgres)


async def test_killed_postmaster_recovers_on_the_next_start() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        child = await start(rig, postgres)
        await query(postgres, "CREATE TABLE notes AS SELECT 1 AS note")
        child.signal(signal.SIGKILL)
        await child.wait()
        await child.kill()
        assert (postgres.data / "postmaster.pid").exists()
        child = await start(rig, postgres)
        assert await query(postgres, "SELECT note FROM notes") == 1
        assert "automatic recovery in progress" in text_of(child)


async def test_starting_up_is_waited_for_as_recovery() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        child = await start(rig, postgres)
        # A standby whose primary never comes says 57P03 for as long as it runs.
        await child.stop(grace_seconds=20)
        (postgres.data / "recovery.signal").touch()
        with (postgres.data / "postgresql.auto.conf").open("a") as conf:
            conf.write("restore_command = 'sleep 600; false'\nhot_standby = off\n")
        rig.spawn(await postgres.prepare())
        verdict = await postgres.probe()
        with anyio.fail_after(20):
            while not verdict.recovering:
                verdict = await postgres.probe()
        assert verdict.answer is Answer.WAITING
        assert "starting up" in verdict.detail or "not accepting" in verdict.detail or "recovery" in verdict.detail


async def test_another_password_in_the_data_is_fatal_and_says_what_to_do() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        await start(rig, postgres)
        rig.secrets.path("postgres-app").write_text("another\n")
        verdict = await postgres.probe()
        assert verdict.answer is Answer.FATAL
        assert "SUPERVISOR_STACK" in verdict.detail
        assert str(rig.secrets.path("postgres-app")) in verdict.detail
        assert "another\n".strip() + "@" not in verdict.detail


async def test_superuser_secret_opens_the_server() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        await start(rig, postgres)
        password = rig.secrets.get_or_make("postgres-superuser").reveal()
        connection = await asyncpg.connect(
            host="127.0.0.1", port=postgres.port, user="postgres", password=password, database="postgres", ssl=False
        )
        assert await connection.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True
        await connection.close()


async def test_data_of_a_version_nobody_has_names_the_package() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        await postgres.prepare()
        (postgres.data / "PG_VERSION").write_text("11\n")
        with pytest.raises(ConfigurationError, match=r"apt install postgresql-11 .*pg_upgrade"):
            await postgres.prepare()


@needs_root
async def test_state_folder_postgres_cannot_enter_names_the_folder_and_the_mend() -> None:
    async with open_rig() as rig:
        rig.state.chmod(0o700)
        with pytest.raises(PrivilegeError) as caught:
            await rig.postgres().prepare()
        assert str(rig.state) in str(caught.value)
        assert "chmod o+x" in str(caught.value)
        assert "SUPERVISOR_STATE_DIR" in str(caught.value)
        assert rig.commands == []


@needs_root
async def test_programs_postgres_cannot_reach_name_the_folder() -> None:
    async with open_rig() as rig:
        folder = rig.state / "private" / "bin"
        folder.mkdir(parents=True)
        for name in ("postgres", "initdb"):
            shutil.copy("/bin/true", folder / name)
        folder.parent.chmod(0o700)
        with pytest.raises(PrivilegeError, match="private"):
            await rig.postgres(postgres_bin_dir=str(folder)).prepare()


async def test_failing_initdb_shows_its_words(tmp_path: Path) -> None:
    async with open_rig() as rig:
        folder = rig.state / "bin"
        folder.mkdir(mode=0o755)
        for name in ("postgres", "initdb"):
            (folder / name).write_text("#!/bin/sh\necho no space left for you >&2\nexit 3\n")
            (folder / name).chmod(0o755)
        with pytest.raises(ConfigurationError, match=r"initdb ended with status 3.*\n.*no space left for you"):
            await rig.postgres(postgres_bin_dir=str(folder)).prepare()


async def test_folder_that_is_no_data_folder_is_left_alone() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        postgres.data.mkdir(parents=True)
        (postgres.data / "precious").touch()
        with pytest.raises(ConfigurationError, match="no PG_VERSION"):
            await postgres.prepare()
        assert (postgres.data / "precious").exists()


async def test_empty_folder_in_its_place_is_used() -> None:
    async with open_rig() as rig:
        postgres = rig.postgres()
        postgres.data.mkdir(parents=True)
        await postgres.prepare()
        assert data_major(postgres.data) is not None


def test_data_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(ConfigurationError, match="it is a file"):
        data_major(tmp_path / "data")


@pytest.mark.parametrize("name", ["postgres", "pg_x", "template1"])
def test_names_postgres_keeps_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPERVISOR_STACK"):
        require_usable_name(name)


def test_odd_password_is_quoted() -> None:
    assert "PASSWORD 'it''s'" in owner_sql("app", Secret("it's"))


class TestStalePidFile:
    async def test_of_a_process_that_is_no_postgres_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n{tmp_path}\n")
        drop_stale_pid_file(tmp_path)
        assert not (tmp_path / "postmaster.pid").exists()

    async def test_of_nobody_is_left_to_postgres(self, tmp_path: Path) -> None:
        (tmp_path / "postmaster.pid").write_text("4194305\n")
        drop_stale_pid_file(tmp_path)
        assert (tmp_path / "postmaster.pid").exists()

    @pytest.mark.parametrize("same", [True, False])
    async def test_of_a_live_server_is_an_error_and_of_another_folder_s_is_removed(self, same: bool) -> None:
        async with open_rig() as rig:
            folder = rig.state / "elsewhere"
            folder.mkdir()
            script = (
                "import ctypes, time; ctypes.CDLL(None).prctl(15, b'postgres'); print(1, flush=True); time.sleep(60)"
            )
            child = rig.spawn(Command(name="x", argv=[sys.executable, "-c", script], env=os.environ, cwd=str(folder)))
            await child.ring.wait_newer(0)
            data = folder if same else rig.state
            (data / "postmaster.pid").write_text(f"{child.pid}\n")
            if same:
                with pytest.raises(ConfigurationError, match=f"pid {child.pid}"):
                    drop_stale_pid_file(data)
            else:
                drop_stale_pid_file(data)
                assert not (data / "postmaster.pid").exists()

    async def test_naming_a_process_of_the_server_s_own_user_does_not_stop_the_start(self) -> None:
        async with open_rig() as rig:
            postgres = rig.postgres()
            await postgres.prepare()
            other = rig.spawn(Command(name="x", argv=["/bin/sleep", "60"], env={}, identity=postgres.identity))
            lines = [str(other.pid), str(postgres.data), "1700000000", str(postgres.port), "", "127.0.0.1", "", ""]
            (postgres.data / "postmaster.pid").write_text("\n".join(lines))
            await start(rig, postgres)
