"""What the database itself says before it is saved: its size, its version, and how many tables a dump must have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
import asyncpg

from supervisor.core.errors import UnreachableError
from supervisor.core.secret import Secret
from supervisor.probe.postgres_login import log_in, mask_password
from supervisor.probe.tcp import explain_connect_error

_CONNECT_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
# As pg_dump sees it: no system schemas, and not what an extension made, which CREATE EXTENSION makes again.
_TABLES = """
SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e'
                      AND d.classid = 'pg_class'::regclass AND d.objid = c.oid
                       OR d.deptype = 'e' AND d.classid = 'pg_namespace'::regclass AND d.objid = n.oid)
"""
_SIZE = "SELECT pg_database_size(current_database())"


@dataclass(frozen=True)
class Facts:
    """One moment of the database. `snapshot` names it for pg_dump, for as long as the session that gave it is there."""

    snapshot: str
    tables: int
    major: int


async def database_bytes(dsn: Secret) -> int:
    """Its size on its own disk: more than a dump of it takes, but for odd data. Raises UnreachableError."""
    async with _session(dsn) as session:
        return int(await session.fetchval(_SIZE))


@asynccontextmanager
async def observed(dsn: Secret) -> AsyncIterator[Facts]:
    """The facts of one moment; the dump of that moment must be made within the block. Raises UnreachableError."""
    async with _session(dsn) as session:
        await session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        # A dump takes its time, in which this session only holds the moment.
        await session.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        facts = Facts(
            snapshot=str(await session.fetchval("SELECT pg_export_snapshot()")),
            tables=int(await session.fetchval(_TABLES)),
            major=session.get_server_version().major,
        )
        yield facts


@asynccontextmanager
async def _session(dsn: Secret) -> AsyncIterator[asyncpg.Connection[Any]]:
    try:
        with anyio.fail_after(_CONNECT_SECONDS):
            session = await log_in(dsn, application_name="supervisor snapshot")
    except TimeoutError as error:
        raise _unreachable(f"no answer within {_CONNECT_SECONDS:g} s") from error
    except OSError as error:
        raise _unreachable(explain_connect_error(error)) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, ValueError, EOFError) as error:
        raise _unreachable(mask_password(str(error), dsn)) from None
    try:
        yield session
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise _unreachable(str(error)) from error
    finally:
        with anyio.CancelScope(shield=True), suppress(Exception):
            await session.close(timeout=_CLOSE_SECONDS)
        session.terminate()


def _unreachable(why: str) -> UnreachableError:
    return UnreachableError(f"cannot save the database: {why}; see that it runs and that DATABASE_URL names it")
