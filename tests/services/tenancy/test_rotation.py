"""Changing a secret: the order of it, a kill after each step, failures, and apps that never notice."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from supervisor.core.errors import ConfigurationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer
from supervisor.process.child import Command
from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.locks import app_login_lock, redis_lock, role_lock
from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.redis import RedisTenancy
from supervisor.services.tenancy.rotation import Lock, Settled, Step, recover, rotate, settle
from supervisor.services.tenancy.session import can_log_in, url_for
from supervisor.services.tenancy.tenant import Tenant, Wish
from supervisor.store.rotating import RotatingSecret
from tests.services.embedded_rig import Rig, answered, open_rig
from tests.services.tenancy.rig import Server, Stack, connected, start_postgres

pytestmark = pytest.mark.anyio

OLD, NEW = Secret("old"), Secret("new")
AUTH = Tenant(app="auth")


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


async def nothing() -> None:
    pass


@dataclass
class Door:
    """A server that takes some secrets; `both` and what fails as told."""

    good: set[str] = field(default_factory=lambda: {"old"})
    both: bool = True
    fails: str = ""

    def lock(self) -> Lock:
        return Lock(admit=self.admit, refuse=self.refuse, works=self.works, both=self.both)

    async def admit(self, secret: Secret) -> None:
        if self.fails == "admit":
            raise UnreachableError("cannot reach the door")
        self.good = {*(self.good if self.both else ()), secret.reveal()}

    async def refuse(self, secret: Secret) -> None:
        self.good.discard(secret.reveal())

    async def works(self, secret: Secret) -> bool:
        return secret.reveal() in self.good and self.fails != "works"


def record_in(folder: Path) -> RotatingSecret:
    folder.mkdir(exist_ok=True)
    record = RotatingSecret(folder, "auth")
    if record.current() is None:
        record.put_current(OLD)
    return record


@pytest.mark.parametrize("both", [True, False])
async def test_kill_after_each_step_leaves_a_secret_that_works(tmp_path: Path, both: bool) -> None:
    """The folder and the server are copied at each step, as a kill would leave them."""
    record, door = record_in(tmp_path / "live"), Door(both=both)
    left: dict[Step, Door] = {}

    def reached(step: Step) -> None:
        shutil.copytree(tmp_path / "live", tmp_path / step)
        left[step] = copy.deepcopy(door)

    await rotate(record, door.lock(), NEW, adopt=nothing, reached=reached)
    assert list(left) == list(Step)
    assert (record.current(), record.next(), door.good) == (NEW, None, {"new"})
    for step, at in left.items():
        found = record_in(tmp_path / step)
        settled = await recover(found, at.lock())
        expected = {Step.RECORDED: Settled.DROP, Step.OPENED: Settled.FINISH, Step.PROVED: Settled.FINISH}
        assert settled is expected.get(step, Settled.NOTHING), step
        current = found.current()
        assert current == (OLD if step is Step.RECORDED else NEW)
        assert current is not None
        assert current.reveal() in at.good
        assert found.next() is None
        assert await recover(found, at.lock()) is Settled.NOTHING


@pytest.mark.parametrize("fails", ["admit", "works", "adopt", "cancelled"])
async def test_failed_change_goes_back_to_the_old_one(tmp_path: Path, fails: str) -> None:
    record, door = record_in(tmp_path), Door(fails=fails)

    async def adopt() -> None:
        assert record.current() == NEW
        if fails == "cancelled":
            await anyio.sleep_forever()
        raise UnreachableError("cannot reload the app")

    if fails == "cancelled":
        with anyio.move_on_after(0.05) as scope:
            await rotate(record, door.lock(), NEW, adopt=adopt)
        assert scope.cancelled_caught
    else:
        with pytest.raises((UnreachableError, ConfigurationError)):
            await rotate(record, door.lock(), NEW, adopt=adopt)
    assert (record.current(), record.next(), door.good) == (OLD, None, {"old"})


async def test_server_that_takes_neither_is_said(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.put_next(NEW)
    with pytest.raises(ConfigurationError, match="takes neither the old nor the new"):
        await recover(record, Door(good=set()).lock())
    assert record.next() == NEW
    assert settle(pending=True, next_works=True, current_works=True) is Settled.FINISH


def test_secrets_of_a_change_are_their_owner_s_alone(tmp_path: Path) -> None:
    record = record_in(tmp_path)
    record.put_next(NEW)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["auth", "auth.next"]


def test_credential_is_read_as_it_was_written_and_takes_turns() -> None:
    credential = Credential(Slot.B, Secret("with:colon"))
    assert Credential.parse(credential.text()) == credential
    assert credential.successor().slot is Slot.A
    for odd in ("password", "c:x", "a:"):
        with pytest.raises(ConfigurationError, match="not of the form"):
            Credential.parse(Secret(odd))


@pytest.fixture(scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with open_rig(limit_seconds=300.0) as opened:
        yield opened


@pytest.fixture(scope="module")
async def server(rig: Rig) -> Server:
    return await start_postgres(rig)


def wish_with(stack: Stack, *kept: Secret | None) -> Wish:
    found = [Credential.parse(text) for text in kept if text is not None]
    logins = {("auth", each.slot): each.password for each in found}
    return Wish(stack=stack.name, install=stack.name, database=stack.name, tenants=(AUTH,), logins=logins)


async def begun(stack: Stack, folder: Path) -> RotatingSecret:
    """An app that is set up, with what is kept of it."""
    record = RotatingSecret(folder, "auth")
    record.put_current(Credential.make().text())
    await stack.tenancy.ensure(wish_with(stack, record.current()))
    return record


def url_of(stack: Stack, kept: Secret | None) -> Secret:
    assert kept is not None
    credential = Credential.parse(kept)
    return stack.tenancy.url(wish_with(stack, kept), "auth", credential.slot, credential.password)


@pytest.mark.servers
async def test_app_that_opens_connections_all_the_time_loses_none(server: Server, tmp_path: Path) -> None:
    async with server.stack() as stack:
        record = await begun(stack, tmp_path)
        opened: dict[Slot, int] = dict.fromkeys(Slot, 0)
        more, stopping = anyio.Event(), False

        async def generation(kept: Secret | None, ended: anyio.Event) -> None:
            """Two clients, a new connection for each request, until it is drained."""
            nonlocal more
            slot = Credential.parse(kept).slot if kept else Slot.A
            while not ended.is_set() and not stopping:
                async with connected(url_of(stack, kept)) as connection:
                    await connection.execute("SELECT 1")
                opened[slot] += 1
                more.set()
                more = anyio.Event()

        async def until(slot: Slot, count: int) -> None:
            wanted = opened[slot] + count
            with anyio.fail_after(20):
                while opened[slot] < wanted:
                    await more.wait()

        async with anyio.create_task_group() as group:
            old_ended, never = anyio.Event(), anyio.Event()
            for _ in range(2):
                group.start_soon(generation, record.current(), old_ended)
            await until(Slot.A, 3)

            async def reload() -> None:
                for _ in range(2):
                    group.start_soon(generation, record.current(), never)
                await until(Slot.B, 3)
                await until(Slot.A, 3)  # the old one still opens connections
                old_ended.set()
                with anyio.fail_after(20):
                    while await sessions(stack, Slot.A):
                        await anyio.sleep(0.02)

            before = record.current()
            lock = app_login_lock(stack.tenancy, wish_with(stack, before), "auth")
            assert before is not None
            await rotate(record, lock, Credential.parse(before).successor().text(), adopt=reload)
            await until(Slot.B, 3)
            stopping = True
        assert not await can_log_in(url_of(stack, before))
        assert not (await stack.tenancy.ensure(wish_with(stack, record.current()))).statements


async def sessions(stack: Stack, slot: Slot) -> int:
    async with connected(stack.admin) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
        found: int = await connection.fetchval(query, f"{stack.name}_auth_{slot}")
        return found


_KILLED = """
import os, signal, sys
from pathlib import Path
import anyio
from supervisor.core.secret import Secret
from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.locks import app_login_lock
from supervisor.services.tenancy.postgres import PostgresTenancy
from supervisor.services.tenancy.rotation import rotate
from supervisor.services.tenancy.tenant import Tenant, Wish
from supervisor.store.rotating import RotatingSecret

admin, stack, folder, last = sys.stdin.read().split()
record = RotatingSecret(Path(folder), "auth")
new = Credential.parse(record.current()).successor().text()
wish = Wish(stack=stack, install=stack, database=stack, tenants=(Tenant(app="auth"),))
def reached(step):
    if step.name == last:
        os.kill(os.getpid(), signal.SIGKILL)
async def adopt():
    pass
anyio.run(lambda: rotate(record, app_login_lock(PostgresTenancy(Secret(admin)), wish, "auth"), new,
          adopt=adopt, reached=reached))
"""


@pytest.mark.servers
async def test_kill_9_after_each_step_recovers_at_the_next_start(server: Server, tmp_path: Path, soak: bool) -> None:
    # Of each outcome one; the others differ in nothing that is recorded.
    for step in Step if soak else (Step.RECORDED, Step.OPENED, Step.PROMOTED):
        folder = tmp_path / step.name
        folder.mkdir()
        async with server.stack() as stack:
            record = await begun(stack, folder)
            old = record.current()
            given = folder / "stdin"
            given.write_text(f"{stack.admin.reveal()} {stack.name} {folder} {step.name}")
            with given.open() as stdin:
                command = Command(
                    name="rotation",
                    argv=[sys.executable, "-c", _KILLED],
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                    stdin=stdin.fileno(),
                )
                child = server.rig.spawn(command)
            assert (await child.wait()).status == 128 + signal.SIGKILL, step
            # What a start does: settle, then set up what is recorded.
            lock = app_login_lock(stack.tenancy, wish_with(stack, old), "auth")
            await recover(record, lock)
            await stack.tenancy.ensure(wish_with(stack, record.current()))
            assert (record.current() == old) is (step is Step.RECORDED)
            assert await can_log_in(url_of(stack, record.current()))
            other = Slot(Credential.parse(record.current() or OLD).slot).other
            assert await lets_in(stack, other) is False


async def lets_in(stack: Stack, slot: Slot) -> bool:
    async with connected(stack.admin) as connection:
        query = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1"
        found: bool = await connection.fetchval(query, f"{stack.name}_auth_{slot}")
        return found


@pytest.mark.servers
async def test_role_of_our_own_changes_its_own_password(server: Server, tmp_path: Path) -> None:
    async with server.stack() as stack:
        record = RotatingSecret(tmp_path, "install")
        record.put_current(Secret("install"))

        def admin() -> Secret:
            return url_for(stack.admin, role=stack.name, password=record.current() or OLD)

        await rotate(record, role_lock(admin, stack.name), NEW, adopt=nothing)
        assert await can_log_in(url_for(stack.admin, role=stack.name, password=NEW))
        assert not await can_log_in(url_for(stack.admin, role=stack.name, password=Secret("install")))


@pytest.mark.servers
async def test_default_user_of_redis_has_both_until_it_is_done(rig: Rig, tmp_path: Path) -> None:
    redis = rig.redis()
    rig.spawn(await redis.prepare())
    await answered(redis.probe, Answer.GOOD)
    old = rig.secrets.get_or_make("redis")
    record = RotatingSecret(tmp_path, "redis")
    record.put_current(old)
    seen: list[bool] = []

    async def adopt() -> None:
        lock = redis_lock(RedisTenancy(redis.url), redis.url, "default")
        seen.extend([await lock.works(old), await lock.works(NEW)])

    lock = redis_lock(RedisTenancy(redis.url), redis.url, "default")
    # The last step is by the new one: the old ends with it.
    await rotate(record, lock, NEW, adopt=adopt)
    assert seen == [True, True]
    assert (await lock.works(old), await lock.works(NEW)) == (False, True)
