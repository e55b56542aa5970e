"""The one connection of a run: opened, bounded by a deadline, closed, and every way it can end as one of our errors."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import anyio
import asyncpg

from supervisor.core.errors import ConfigurationError, MigrationError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.migrations.progress import Progress, explain_deadline, explain_failure, explain_lost
from supervisor.probe.postgres_login import log_in, mask_password
from supervisor.probe.tcp import explain_connect_error

Session: TypeAlias = "asyncpg.Connection[Any]"

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
# The server ends the session: by an administrator, a crash, a shutdown, an idle limit (appendix A of the manual).
_ENDED_BY_SERVER = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
# Undoes what an earlier file SET. RESET ROLE comes second: it goes back to a role given by ALTER ROLE ... SET role.
RESET = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL"
# Set where the server knows them (14 on): it notices within 1 s that we were killed in a long statement, and keeps the
# session while a command runs beside it.
_GUARDS = """
SELECT set_config(name, CASE name WHEN 'idle_session_timeout' THEN '0' ELSE '1s' END, false)
  FROM pg_settings WHERE name IN ('client_connection_check_interval', 'idle_session_timeout')
"""


@asynccontextmanager
async def bounded(progress: Progress, deadline_seconds: float) -> AsyncIterator[None]:
    """Bound a run by its deadline and turn what ends it early into our errors, told by `progress`.

    To be entered before `connect`, so that the connection is closed, its work cancelled, when the error is raised.
    """
    with anyio.move_on_after(deadline_seconds) as deadline:
        try:
            yield
        except asyncpg.PostgresError as error:
            if is_lost(error):
                raise UnreachableError(explain_lost(progress, str(error))) from error
            raise MigrationError(explain_failure(progress, error)) from error
        except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise UnreachableError(explain_lost(progress, str(error))) from error
    if deadline.cancelled_caught:
        raise MigrationError(explain_deadline(progress, deadline_seconds))


def is_lost(error: asyncpg.PostgresError) -> bool:
    """Whether the session is gone, other than that a statement failed in it."""
    code = error.sqlstate or ""
    return code.startswith("08") or code in _ENDED_BY_SERVER


@asynccontextmanager
async def connect(dsn: Secret) -> AsyncIterator[Session]:
    """A session of its own on the database, closed at the end, which also releases its locks.

    Raises ConfigurationError for a URL that is none and UnreachableError when nobody lets us in; no text of them holds
    the password. Leaving waits up to 2 s, shielded, until the server has ended the session: then an open transaction is
    rolled back.
    """
    session = await _open(dsn)
    try:
        yield session
    finally:
        with anyio.CancelScope(shield=True), suppress(Exception):
            await session.close(timeout=_CLOSE_SECONDS)
        session.terminate()


async def prepare(session: Session) -> None:
    """Make the session as new, whatever an earlier file left in it (settings, roles, temporary tables)."""
    await session.execute(f"{RESET}; DISCARD TEMP")
    with suppress(asyncpg.InvalidParameterValueError):  # a server that cannot watch its client's socket
        await session.execute(_GUARDS)


async def has_table(session: Session, name: str) -> bool:
    """Whether a table is there. To try a missing one outright would put an error into the server's log."""
    return bool(await session.fetchval("SELECT to_regclass($1) IS NOT NULL", name))


async def _open(dsn: Secret) -> Session:
    whom = _whom(dsn)
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            return await log_in(dsn, application_name=application_name())
    except TimeoutError as error:
        raise _unreachable(whom, f"no answer within {_CONNECT_SECONDS:g} s") from error
    except OSError as error:
        raise _unreachable(whom, explain_connect_error(error)) from error
    except asyncpg.PostgresError as error:
        said = error.args[0] if error.args else type(error).__name__
        raise _unreachable(whom, f"{said} (SQLSTATE {error.sqlstate})") from error
    except ValueError as error:
        raise _unfit_url(mask_password(str(error), dsn)) from None
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError) as error:
        raise _unreachable(whom, mask_password(str(error), dsn)) from None


def application_name() -> str:
    """What pg_stat_activity shows of us: who else waits for the lock can find us by it (63 bytes at most)."""
    suffix = f" pid {os.getpid()}"
    return f"supervisor migrations {socket.gethostname()}"[: 63 - len(suffix)] + suffix


def _whom(dsn: Secret) -> str:
    """`user@host:port/name` of a URL, without its password."""
    try:
        parts = urlsplit(dsn.reveal())
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        # What urlsplit says may quote a password with a `/` or `#` in it.
        raise _unfit_url("it cannot be taken apart") from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise _unfit_url("its password or user holds a sign that ends it early")
    return f"{parts.username or '?'}@{parts.hostname or 'local socket'}{port}{parts.path}"


def _unreachable(whom: str, why: str) -> UnreachableError:
    return UnreachableError(
        f"cannot connect to the database {whom} for its migrations: {why}; see that it runs and that DATABASE_URL "
        f"names it; nothing was changed"
    )


def _unfit_url(why: str) -> ConfigurationError:
    return ConfigurationError(
        f"cannot use DATABASE_URL: {why}; it reads postgresql://user:password@host:port/name, "
        f"with signs like / # ? @ in the password percent-encoded"
    )
