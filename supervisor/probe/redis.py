"""Whether Redis takes reads and writes with this password, and what its refusals mean."""

from __future__ import annotations

from typing import Any

import anyio
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from supervisor.core.secret import Secret
from supervisor.probe.tcp import explain_connect_error
from supervisor.probe.verdict import Verdict, fatal, good, waiting

PROBE_KEY = "supervisor:probe"
_PROBE_KEY_MILLISECONDS = 1000
_WRONG_PASSWORD = ("WRONGPASS", "NOAUTH", "invalid password", "invalid username-password", "without any password")


async def probe_redis(url: Secret, *, limit_seconds: float = 3.0, password_hint: str = "") -> Verdict:
    """AUTH, INFO, PING and a SET that expires, on a connection of its own; `peer_pid` is the server's own pid.

    `password_hint` says what to do about a refused password. The password is in no detail.
    """
    try:
        client = _client(url.reveal())
    except ValueError:
        return fatal("cannot use the Redis URL: it is not of the form redis://:password@host:port/0; correct REDIS_URL")
    try:
        with anyio.fail_after(limit_seconds):
            return await _ask(client)
    except (TimeoutError, exceptions.TimeoutError):
        return waiting(f"no answer within {limit_seconds:g} s")
    except (exceptions.RedisError, OSError) as error:
        return decide_refusal(error, password_hint)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
            await client.aclose()


def _client(url: str) -> redis.asyncio.Redis:
    """One connection, no retries, nothing said about ourselves: a probe sends only what it asks.

    RESP2, as its AUTH is answered while the data is still loading, which leaves INFO to tell the progress.
    """
    return redis.asyncio.Redis.from_url(
        url,
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        protocol=2,
        driver_info=None,
        health_check_interval=0,
        decode_responses=True,
    )


async def _ask(client: redis.asyncio.Redis) -> Verdict:
    # One round trip: an idle supervisor should hardly wake up.
    pipeline = client.pipeline(transaction=False)
    pipeline.info()
    pipeline.ping()
    pipeline.set(PROBE_KEY, "1", px=_PROBE_KEY_MILLISECONDS)
    try:
        info, *answers = await pipeline.execute(raise_on_error=False)
    except exceptions.BusyLoadingError:
        # The client library gives up the whole pipeline for it; INFO alone is answered, and has the progress.
        return decide_info(await client.info()) or waiting("loading its data", recovering=True)
    for answer in (info, *answers):
        if isinstance(answer, Exception):
            raise answer
    early = decide_info(info)
    if early is not None:
        return early
    return good(f"Redis {info.get('redis_version', '?')} answers", peer_pid=int(info.get("process_id", 0)))


def decide_info(info: dict[str, Any]) -> Verdict | None:
    """The verdict that INFO alone allows, None where the server must still be tried."""
    if int(info.get("loading", 0)):
        percent = info.get("loading_loaded_perc", "?")
        return waiting(f"loading its data, {percent} % done", recovering=True)
    if str(info.get("role", "master")) != "master":
        return fatal(
            f"the server is a replica of {info.get('master_host', 'another')} and takes no writes; "
            f"point REDIS_URL at its master, or run REPLICAOF NO ONE"
        )
    return None


def decide_refusal(error: Exception, password_hint: str = "") -> Verdict:
    """What an error of the client library means; Redis has no codes but the first word, so the text decides."""
    said = str(error)
    hint = password_hint or "put the right password into REDIS_URL"
    match error:
        case exceptions.BusyLoadingError():
            return waiting("loading its data", recovering=True)
        case exceptions.AuthenticationError() | exceptions.AuthenticationWrongNumberOfArgsError():
            return fatal(f"the server refuses the password: {said}; {hint}")
        case exceptions.NoPermissionError():
            return fatal(f"the user may not do what the probe does: {said}; allow it INFO, PING and SET {PROBE_KEY}")
        case exceptions.ReadOnlyError():
            return fatal(f"the server takes no writes: {said}; point REDIS_URL at the master")
        case exceptions.ResponseError() if said.startswith("MISCONF"):
            return fatal(f"the server takes no writes, as it cannot save to disk: {said}; free some space there")
        case exceptions.ResponseError() if any(mark in said for mark in _WRONG_PASSWORD):
            return fatal(f"the server refuses the password: {said}; {hint}")
        case exceptions.ConnectionError() if isinstance(error.__cause__ or error.__context__, OSError):
            cause = error.__cause__ or error.__context__
            assert isinstance(cause, OSError)
            return waiting(f"cannot connect: {explain_connect_error(cause)}")
        case OSError():
            return waiting(f"cannot connect: {explain_connect_error(error)}")
        case _:
            return waiting(f"no proper answer: {said}")
