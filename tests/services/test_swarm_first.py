"""Changed passwords of services on the engine: their Swarm secret stays, a server that has the first is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.verdict import Answer, Verdict, fatal, good
from supervisor.services.swarm.data import Reach
from supervisor.services.swarm.first import FirstPassword
from supervisor.services.swarm.redis import EngineRedis
from supervisor.services.tenancy.locks import redis_lock
from supervisor.services.tenancy.redis import RedisTenancy, can_log_in
from supervisor.services.tenancy.rotation import Lock, rotate
from supervisor.store.secrets import SecretFolder
from tests.services.embedded_rig import Rig, answered, open_rig
from tests.services.test_swarm_data import World, hands, postgres

pytestmark = pytest.mark.anyio
NEW = Secret("the-new-password-of-this-test")


async def nothing(_: Secret | None = None) -> None:
    pass


async def adopted() -> None:
    pass


async def works(_: Secret) -> bool:
    return True


def lock() -> Lock:
    return Lock(admit=nothing, refuse=nothing, works=works, both=False)


async def test_the_service_is_given_what_it_was_made_with_for_ever(tmp_path: Path) -> None:
    first = FirstPassword(SecretFolder(tmp_path), "postgres")
    old = first.given()
    await rotate(first.record, first.lock(lock()), NEW, adopt=adopted)
    await rotate(first.record, first.lock(lock()), Secret("a-third"), adopt=adopted)
    assert (first.given(), first.record.current()) == (old, Secret("a-third"))


async def test_a_server_with_the_first_password_is_told_the_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a Postgres whose volume was made anew."""
    knows, told = [""], list[Secret]()

    async def probe(dsn: Secret, **_: object) -> Verdict:
        return good() if knows[0] in dsn.reveal() else fatal("wrong password")

    async def set_password(password: Secret) -> None:
        told.append(password)
        knows[0] = password.reveal()

    monkeypatch.setattr("supervisor.services.swarm.postgres.probe_postgres", probe)
    made = postgres(World(), tmp_path, set_password)
    knows[0] = made.first.given().reveal()
    assert (await made.probe()).good
    await rotate(made.first.record, made.first.lock(lock()), NEW, adopt=adopted)
    assert told == []
    assert (await made.probe()).good
    assert told == [NEW]
    knows[0] = "of somebody else"
    assert (await made.probe()).answer is Answer.FATAL


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with open_rig() as opened:
        yield opened


@pytest.mark.servers
async def test_a_redis_that_starts_with_the_first_password_takes_only_the_one_in_use(rig: Rig, tmp_path: Path) -> None:
    server = rig.redis()
    rig.spawn(await server.prepare())
    await answered(server.probe, Answer.GOOD)
    secrets = SecretFolder(tmp_path)
    secrets.rotating("redis").put_current(rig.secrets.get_or_make("redis"))  # what it was started with
    reach = Reach(host="127.0.0.1", port=server.port, published=server.port)
    made = EngineRedis(Settings(stack="shop"), hands=hands(World()), secrets=secrets, reach=reach)
    old = made.url
    await rotate(made.first.record, made.first.lock(lock()), NEW, adopt=adopted)  # the server is not told
    assert (await made.probe()).good
    assert (await can_log_in(old), await can_log_in(made.url)) == (False, True)
    # A kill between the two leaves both good; the next start closes the old one.
    await redis_lock(RedisTenancy(made.url), made.url, "default").admit(made.first.given())
    assert await can_log_in(old)
    await made.close_others()
    assert (await can_log_in(old), await can_log_in(made.url)) == (False, True)
