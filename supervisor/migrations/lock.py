"""The advisory lock around a run: one supervisor at a time for one name in one database."""

from __future__ import annotations

import hashlib
from typing import Any

import anyio
import asyncpg

from supervisor.migrations.progress import Phase, Progress

_FIRST_POLL_SECONDS = 0.025
_LONGEST_POLL_SECONDS = 0.5
_HOLDER = """
SELECT l.pid, a.application_name, a.client_addr::text AS client, a.state, a.query_start::text AS since
  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (l.classid::bigint << 32) | l.objid::bigint = $1
"""


def lock_key(name: str) -> int:
    """The lock's number: 64 signed bits of the name's SHA-256, so that no other use of advisory locks collides."""
    digest = hashlib.sha256(f"supervisor migrations {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def acquire(connection: asyncpg.Connection[Any], name: str, progress: Progress) -> bool:
    """Hold the lock `name` until the connection closes; True when somebody else held it first.

    Waits until cancelled; the caller's deadline bounds it, and who holds the lock is kept in `progress` for its error.
    It asks again and again because a session blocked in pg_advisory_lock() holds a snapshot, which the holder's CREATE
    INDEX CONCURRENTLY would wait for: a deadlock. The lock belongs to the session that also runs the statements, so it
    lasts for as long as one of them can still have an effect, whatever became of us.
    """
    progress.phase = Phase.LOCK
    key = lock_key(name)
    delay = _FIRST_POLL_SECONDS
    waited = False
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):
        waited = True
        progress.holder = describe_holder(await connection.fetchrow(_HOLDER, key)) or progress.holder
        await anyio.sleep(delay)
        delay = min(_LONGEST_POLL_SECONDS, delay * 1.5)
    return waited


def describe_holder(row: Any) -> str:
    """Who holds the lock, from pg_locks and pg_stat_activity; "" when it is free; details may be hidden."""
    if row is None:
        return ""
    parts = [f"database pid {row['pid']}"]
    parts += [f"application {row['application_name']!r}"] if row["application_name"] else []
    parts += [f"from {row['client'].split('/')[0]}"] if row["client"] else []
    parts += [f"{row['state']} since {row['since']}"] if row["state"] and row["since"] else []
    return ", ".join(parts)
