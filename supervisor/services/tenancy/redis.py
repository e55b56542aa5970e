"""Gives Redis the apps' users. They live in its memory: to be done again each time it has become ready."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import anyio
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from supervisor.core.errors import ConfigurationError, PrivilegeError, TransientError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.redis_rules import (
    OLDEST,
    Keys,
    RedisWish,
    allowed_words,
    forbidden_words,
    password_hash,
    user_rules,
    version_of,
)

_LIMIT_SECONDS = 10.0
_DOING = "give the apps users of their own in Redis"


class RedisTenancy:
    """The users of one Redis; `admin` is the URL of its default user, or of another that may use ACL."""

    def __init__(self, admin: Secret, *, limit_seconds: float = _LIMIT_SECONDS) -> None:
        self._admin = admin
        self._limit_seconds = limit_seconds
        # By user: the rules that were set, and how this server shows them; versions differ too much to compare.
        self._settled: dict[str, tuple[tuple[str, ...], object]] = {}

    async def ensure(self, wish: RedisWish) -> tuple[str, ...]:
        """Set every user that is not as it shall be, put users of apps no longer declared off; says what it did.

        Users are the stack's by their name's beginning. Sessions that are open live on with the new rules. Raises
        ConfigurationError where the server has no rules for channels, PrivilegeError where `admin` may not use ACL.
        """
        async with _opened(self._admin, self._limit_seconds, _DOING) as client:
            version = version_of(str((await client.info("server")).get("redis_version", "")))
            if version < OLDEST:
                raise ConfigurationError(
                    f"cannot {_DOING}: it is a Redis {version[0]}.{version[1]}, and rules for channels came with "
                    f"{OLDEST[0]}.{OLDEST[1]}; take a newer one, or set `redis = false` for all apps but one"
                )
            done = [
                f"user {wish.user(keys.app)!r} set"
                for keys in wish.apps
                if await self._settle(client, wish.user(keys.app), user_rules(wish, keys, version=version))
            ]
            wanted = {wish.user(keys.app) for keys in wish.apps}
            for user in await _ask(client, "ACL", "USERS"):
                if user.startswith(f"{wish.stack}_") and user not in wanted and await self._settle(client, user, _OFF):
                    done.append(f"user {user!r}, of no app that is declared, put off")
        return tuple(done)

    async def _settle(self, client: Any, user: str, rules: tuple[str, ...]) -> bool:
        shown = await _ask(client, "ACL", "GETUSER", user)
        if shown is not None and self._settled.get(user) == (rules, shown):
            return False
        await _ask(client, "ACL", "SETUSER", user, *rules)
        self._settled[user] = (rules, await _ask(client, "ACL", "GETUSER", user))
        return True

    async def add_password(self, user: str, password: Secret) -> None:
        """Let `user` in with this one, too; nothing else of it changes."""
        async with _opened(self._admin, self._limit_seconds, f"set a password of user {user!r} in Redis") as client:
            await _ask(client, "ACL", "SETUSER", user, f"#{password_hash(password)}")

    async def set_only_password(self, user: str, password: Secret) -> None:
        """Let `user` in with this one and no other; sessions that are open live on."""
        async with _opened(self._admin, self._limit_seconds, f"set the password of user {user!r} in Redis") as client:
            await _ask(client, "ACL", "SETUSER", user, "resetpass", f"#{password_hash(password)}")

    async def drop_password(self, user: str, password: Secret) -> None:
        """Let nobody in as `user` with this one any more; sessions that are open live on."""
        async with _opened(self._admin, self._limit_seconds, f"drop a password of user {user!r} in Redis") as client:
            shown = await _ask(client, "ACL", "GETUSER", user)
            if shown is not None and password_hash(password) in str(shown):
                await _ask(client, "ACL", "SETUSER", user, f"!{password_hash(password)}")

    def url(self, wish: RedisWish, app: str, password: Secret) -> Secret:
        """What the app gets as REDIS_URL."""
        return url_as(self._admin, user=wish.user(app), password=password)


_OFF = ("reset", "resetchannels")
"""No password, no right, off; a user's sessions end at their next command."""


async def verify_redis(server: Secret, wish: RedisWish, *, limit_seconds: float = _LIMIT_SECONDS) -> None:
    """Log in as every app with each of its passwords and try what it may do and what not; nothing is run.

    A server asks for the right when a command is queued in a MULTI, which is then discarded. Raises ConfigurationError
    with all that is not as it shall be.
    """
    wrong: list[str] = []
    for keys in wish.apps:
        for password in wish.passwords.get(keys.app, ()):
            url = url_as(server, user=wish.user(keys.app), password=password)
            async with _opened(url, limit_seconds, f"log in to Redis as {wish.user(keys.app)!r}") as client:
                wrong += [f"app {keys.app!r}: {finding}" for finding in await _tries(client, wish, keys)]
    if wrong:
        raise ConfigurationError(
            f"cannot trust that the apps are kept apart in Redis: {'; '.join(wrong)}; run `supervisor tenancy apply`"
        )


async def _tries(client: Any, wish: RedisWish, keys: Keys) -> list[str]:
    others = [other.start for other in wish.apps if other is not keys] or [f"not-{keys.start}"]
    forbidden = list(dict.fromkeys(words for other in others for words in forbidden_words(keys.start, other)))
    wrong = [f"it may {' '.join(words)}" for words in forbidden if await _is_allowed(client, words)]
    return wrong + [f"it may not {' '.join(w)}" for w in allowed_words(keys.start) if not await _is_allowed(client, w)]


async def _is_allowed(client: Any, words: tuple[str, ...]) -> bool:
    connection = client.connection
    await _reply(connection, "MULTI")
    try:
        await _reply(connection, *words)
    except exceptions.NoPermissionError:
        return False
    except exceptions.ResponseError as error:
        # Refused for another cause than a right: it is not there, or not in a MULTI.
        return not str(error).lower().startswith(("noperm", "unknown command", "command not allowed"))
    finally:
        await _reply(connection, "DISCARD")
    return True


async def can_log_in(url: Secret, *, limit_seconds: float = _LIMIT_SECONDS) -> bool:
    """Whether the server lets this very user and password in; raises UnreachableError where it gives no answer."""
    try:
        async with _opened(url, limit_seconds, "try a login to Redis"):
            return True
    except ConfigurationError:
        return False


def url_as(url: Secret, *, user: str, password: Secret) -> Secret:
    """The same server, entered as another user."""
    parts = urlsplit(url.reveal())
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{quote(user, safe='')}:{quote(password.reveal(), safe='')}@{host}"
    return Secret(urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")))


@asynccontextmanager
async def _opened(url: Secret, limit_seconds: float, doing: str) -> AsyncIterator[Any]:
    """One connection that is logged in, closed at the end; what goes wrong as our errors, none with a password."""
    client = redis.asyncio.Redis.from_url(
        url.reveal(),
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
        retry_on_error=[],
        protocol=2,
        driver_info=None,
        health_check_interval=0,
        decode_responses=True,
    )
    try:
        with anyio.fail_after(limit_seconds):
            await client.initialize()
            yield client
    except (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError) as error:
        raise ConfigurationError(f"cannot {doing}: the server refuses the password: {error}") from error
    except exceptions.NoPermissionError as error:
        raise PrivilegeError(
            f"cannot {doing}: {error}; let the user in REDIS_URL use ACL, or set `redis = false` for the apps"
        ) from error
    except exceptions.BusyLoadingError as error:
        raise TransientError(f"cannot {doing}: it loads its data; try again when it is ready") from error
    except (exceptions.ConnectionError, exceptions.TimeoutError, TimeoutError, OSError) as error:
        raise UnreachableError(f"cannot {doing}: no answer ({type(error).__name__}); see that Redis runs") from error
    except exceptions.RedisError as error:
        raise ConfigurationError(f"cannot {doing}: {error}") from error
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(1.0):
            await client.aclose()


async def _ask(client: Any, *words: str) -> Any:
    """A reply as it came: the client library would take ACL's answers apart, each version's in its own way."""
    return await _reply(client.connection, *words)


async def _reply(connection: Any, *words: str) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()
