"""One session on the apps' database, and every way it can end as one of our errors; logins by other roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import anyio
import asyncpg

from supervisor.core.errors import ConfigurationError, PrivilegeError, TransientError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.probe.postgres_login import log_in, mask_password
from supervisor.probe.tcp import explain_connect_error

Session: TypeAlias = "asyncpg.Connection[Any]"

_APPLICATION = "supervisor tenancy"
_CLOSE_SECONDS = 2.0
_REFUSED = frozenset({"28P01", "28000", "42501", "3D000"})


@asynccontextmanager
async def open_session(dsn: Secret, *, doing: str, limit_seconds: float) -> AsyncIterator[Session]:
    """A session that is closed at the end, after at most `limit_seconds` in all; `doing` begins each error's text.

    What is open in it when it is left early, or cancelled, is rolled back by the server.
    """
    try:
        with anyio.fail_after(limit_seconds):
            session = await log_in(dsn, application_name=_APPLICATION)
            try:
                yield session
                await session.close(timeout=_CLOSE_SECONDS)
            finally:
                session.terminate()
    except TimeoutError as error:
        raise TransientError(f"cannot {doing}: not done within {limit_seconds:g} s; nothing was changed") from error
    except asyncpg.LockNotAvailableError as error:
        raise TransientError(
            f"cannot {doing}: a long transaction holds what it needs ({error}); end it and try again; nothing was "
            f"changed"
        ) from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise PrivilegeError(
            f"cannot {doing}: {error}; let the role in DATABASE_URL own the database and give it CREATEROLE, or have "
            f"an administrator run what `supervisor tenancy plan --sql` prints"
        ) from error
    except asyncpg.PostgresError as error:
        raise ConfigurationError(f"cannot {doing}: {error} (SQLSTATE {error.sqlstate})") from error
    except OSError as error:
        raise UnreachableError(f"cannot {doing}: {explain_connect_error(error)}; see that Postgres runs") from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError, ValueError) as error:
        raise UnreachableError(f"cannot {doing}: {mask_password(str(error), dsn)}; see DATABASE_URL") from None


def url_for(dsn: Secret, *, role: str, password: Secret, database: str = "") -> Secret:
    """The same server, entered as another role; and another database of it where one is named."""
    parts = urlsplit(dsn.reveal())
    host = parts.netloc.rpartition("@")[2]
    who = f"{quote(role, safe='')}:{quote(password.reveal(), safe='')}@{host}"
    kept = [each for each in parse_qsl(parts.query, keep_blank_values=True) if each[0] not in {"user", "password"}]
    path = f"/{quote(database, safe='')}" if database else parts.path
    query = urlencode(kept, quote_via=quote)
    # By hand: urlunsplit leaves the slashes out where there is no host (a unix socket).
    return Secret(f"{parts.scheme}://{who}{urlunsplit(('', '', path, query, ''))}")


async def can_log_in(dsn: Secret, *, limit_seconds: float = 10.0) -> bool:
    """Whether the server lets this very role and password in; only an answer of the server's is a no.

    Raises UnreachableError where it gives none.
    """
    try:
        with anyio.fail_after(limit_seconds):
            session = await log_in(dsn, application_name=_APPLICATION)
    except asyncpg.PostgresError as error:
        if error.sqlstate in _REFUSED:
            return False
        raise UnreachableError(f"cannot try a login: {error} (SQLSTATE {error.sqlstate}); try again") from error
    except TimeoutError as error:
        raise UnreachableError(f"cannot try a login: no answer within {limit_seconds:g} s; try again") from error
    except OSError as error:
        raise UnreachableError(f"cannot try a login: {explain_connect_error(error)}; see that Postgres runs") from error
    with anyio.CancelScope(shield=True), suppress(Exception):
        await session.close(timeout=_CLOSE_SECONDS)
    session.terminate()
    return True
