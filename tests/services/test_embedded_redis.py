"""The embedded Redis, for real: password, data over restarts, loading, and what must not be accepted."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
import redis.asyncio

from supervisor.core.errors import PrivilegeError
from supervisor.core.secret import Secret
from supervisor.probe.redis import PROBE_KEY, probe_redis
from supervisor.probe.verdict import Answer
from supervisor.process.child import Child, Command, Identity
from supervisor.services.embedded.access import REDIS_UID
from supervisor.services.embedded.redis import EmbeddedRedis, config_text, quoted
from tests.services.embedded_rig import Rig, answered, open_rig, text_of

pytestmark = [pytest.mark.anyio, pytest.mark.servers]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


async def start(rig: Rig, server: EmbeddedRedis) -> Child:
    child = rig.spawn(await server.prepare())
    await answered(server.probe, Answer.GOOD)
    return child


async def ask(server: EmbeddedRedis, *words: str) -> object:
    client = redis.asyncio.Redis.from_url(server.url.reveal(), decode_responses=True)
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    finally:
        await client.aclose()


def with_options(command: Command, *options: str) -> Command:
    return Command(
        name=command.name,
        argv=[*command.argv, *options],
        env=command.env,
        cwd=command.cwd,
        identity=command.identity,
        umask=command.umask,
    )


async def test_good_answer_names_our_process_and_leaves_only_a_key_that_expires() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        child = await start(rig, server)
        assert (await server.probe()).peer_pid == child.pid
        assert await ask(server, "KEYS", "*") == [PROBE_KEY]
        assert 0 < int(str(await ask(server, "PTTL", PROBE_KEY))) <= 1000


async def test_data_is_there_after_an_orderly_stop_and_after_a_kill() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        child = await start(rig, server)
        await ask(server, "SET", "note", "kept")
        exit = await child.stop(grace_seconds=20)
        assert exit.clean
        assert "ready to exit" in text_of(child)

        child = await start(rig, server)
        assert await ask(server, "GET", "note") == "kept"
        await ask(server, "SET", "note", "written before the kill")
        child.signal(signal.SIGKILL)
        await child.wait()

        await start(rig, server)
        assert await ask(server, "GET", "note") == "written before the kill"


async def test_password_is_only_in_a_file_of_the_server_s_own() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        command = await server.prepare()
        password = rig.secrets.get_or_make("redis").reveal()
        assert password not in repr(command)
        config = server.folder / "redis.conf"
        assert password in config.read_text()
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert server.folder.stat().st_uid == os.geteuid()
        child = await start(rig, server)
        assert config.stat().st_uid == Path(f"/proc/{child.pid}").stat().st_uid


async def test_configuration_is_what_was_meant() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        await start(rig, server)
        for name, wanted in {
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "appendonly": "yes",
            "maxmemory-policy": "noeviction",
            "dir": str(server.folder / "data"),
        }.items():
            assert await ask(server, "CONFIG", "GET", name) == {name: wanted}


@pytest.mark.parametrize("password", ["wrong", ""])
async def test_another_or_no_password_is_fatal(password: str) -> None:
    async with open_rig() as rig:
        server = rig.redis()
        await start(rig, server)
        account = f":{password}@" if password else ""
        verdict = await probe_redis(Secret(f"redis://{account}127.0.0.1:{server.port}/0"), password_hint="do this")
        assert verdict.answer is Answer.FATAL
        assert verdict.detail.endswith("; do this")


async def test_loading_is_waited_for_with_its_progress_and_then_good() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        child = await start(rig, server)
        # Debug builds aside this is the one way to make loading slow: a pause after each key, in microseconds.
        # It answers after each 1024 keys only, so there must be many.
        await ask(server, "EVAL", "for i=1,30000 do redis.call('SET', 'k'..i, 'x') end", "0")
        await child.stop(grace_seconds=20)
        slow = with_options(await server.prepare(), "--key-load-delay", "50")
        rig.spawn(slow)
        verdict = await answered(server.probe, Answer.WAITING)
        while not verdict.recovering:
            verdict = await server.probe()
            assert not verdict.good
        assert "loading its data" in verdict.detail
        assert "%" in verdict.detail
        await answered(server.probe, Answer.GOOD)


async def test_replica_is_fatal() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        await start(rig, server)
        await ask(server, "REPLICAOF", "127.0.0.1", "1")
        verdict = await server.probe()
        assert verdict.answer is Answer.FATAL
        assert "REDIS_URL" in verdict.detail


async def test_server_that_refuses_writes_is_not_good() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        await start(rig, server)
        await ask(server, "CONFIG", "SET", "maxmemory", "1")
        verdict = await server.probe()
        assert verdict.answer is Answer.WAITING
        assert "memory" in verdict.detail


async def test_server_that_cannot_save_is_fatal() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        command = with_options(await server.prepare(), "--appendonly", "no", "--save", "1 1", "--dbfilename", "d.rdb")
        rig.spawn(command)
        await answered(server.probe, Answer.GOOD)
        # A folder in the snapshot's place: the rename at its end fails for root, too.
        (server.folder / "data" / "d.rdb").mkdir()
        await ask(server, "BGSAVE")
        verdict = await answered(server.probe, Answer.FATAL)
        assert "MISCONF" in verdict.detail


@needs_root
async def test_reserved_uid_without_an_account_works_and_data_of_another_uid_is_taken_over() -> None:
    async with open_rig() as rig:
        server = rig.redis()
        for uid in (REDIS_UID, REDIS_UID + 1):
            server.identity = Identity(uid, uid)
            child = await start(rig, server)
            assert Path(f"/proc/{child.pid}").stat().st_uid == uid
            assert {path.stat().st_uid for path in (server.folder / "data").rglob("*")} == {uid}
            await ask(server, "SET", "a", "b")
            await child.stop(grace_seconds=20)


@needs_root
async def test_state_folder_redis_cannot_enter_names_the_folder() -> None:
    async with open_rig() as rig:
        rig.state.chmod(0o700)
        with pytest.raises(PrivilegeError, match=str(rig.state)):
            await rig.redis().prepare()


def test_odd_values_are_quoted() -> None:
    assert quoted('a "b" \\ c') == '"a \\x22b\\x22 \\x5c c"'
    assert "\\x0a" in quoted("line\nbreak")
    assert quoted("ä") == '"\\xc3\\xa4"'
    assert 'requirepass "a\\x22"' in config_text(1, Path("/x"), Secret('a"'))
