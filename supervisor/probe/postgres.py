"""Whether Postgres serves this very user and database, and what its refusals mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import asyncpg

from supervisor.core.secret import Secret
from supervisor.probe.postgres_login import log_in, mask_password
from supervisor.probe.tcp import explain_connect_error
from supervisor.probe.verdict import Verdict, fatal, good, waiting

LEAST_MAJOR = 14
_QUERY = """
SELECT pg_backend_pid() AS pid,
       pg_is_in_recovery() AS standby,
       current_setting('transaction_read_only') = 'on' AS read_only,
       current_setting('server_version_num')::int AS version,
       1 AS one
"""
_CLOSE_SECONDS = 1.0

Identify = Callable[[int], int]
"""Which pid stands for the server, from the pid of the backend; called while that one still lives."""


def _itself(pid: int) -> int:
    return pid


@dataclass(frozen=True)
class _Facts:
    """What a server that let us in says of itself."""

    pid: int
    standby: bool
    read_only: bool
    version: int


async def probe_postgres(
    dsn: Secret, *, limit_seconds: float = 3.0, password_hint: str = "", identify: Identify = _itself
) -> Verdict:
    """Connect with `dsn` and ask one query; `peer_pid` is what `identify` makes of the backend's pid.

    `password_hint` says what to do about a refused password. The password is in no detail.
    """
    try:
        with anyio.fail_after(limit_seconds):
            facts = await _ask(dsn, identify)
    except TimeoutError:
        return waiting(f"no answer within {limit_seconds:g} s")
    except asyncpg.PostgresError as error:
        return decide_refusal(error, _whom(dsn), password_hint)
    except OSError as error:
        return waiting(f"cannot connect: {explain_connect_error(error)}")
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        return fatal(f"cannot use the database URL: {mask_password(str(error), dsn)}; correct DATABASE_URL")
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, EOFError) as error:
        return waiting(f"what answers does not speak as Postgres does: {mask_password(str(error), dsn)}")
    return decide_facts(facts)


async def _ask(dsn: Secret, identify: Identify) -> _Facts:
    connection = await log_in(dsn, application_name="supervisor probe")
    try:
        row = await connection.fetchrow(_QUERY)
        assert row is not None
        facts = _Facts(identify(int(row["pid"])), bool(row["standby"]), bool(row["read_only"]), int(row["version"]))
        await connection.close(timeout=_CLOSE_SECONDS)
        return facts
    finally:
        # No-op after a close; when cancelled or failed it drops the connection without waiting for the server.
        connection.terminate()


def decide_facts(facts: _Facts) -> Verdict:
    """Good only for a primary that takes writes and is not too old."""
    major = facts.version // 10000
    if major < LEAST_MAJOR:
        return fatal(f"the server is Postgres {major}; {LEAST_MAJOR} or newer is needed: upgrade it")
    if facts.standby:
        return waiting("the server is a standby (in recovery) and takes no writes")
    if facts.read_only:
        return waiting("the server takes no writes (default_transaction_read_only is on)")
    return good(f"Postgres {major} answers", peer_pid=facts.pid)


def decide_refusal(error: asyncpg.PostgresError, whom: str, password_hint: str = "") -> Verdict:
    """What a server's refusal means, by its SQLSTATE (appendix A of the Postgres manual)."""
    said = str(error.args[0]) if error.args else type(error).__name__
    match error.sqlstate:
        case "57P03":
            # Also sent while it shuts down, which is no progress to wait for.
            return waiting(said, recovering="shutting down" not in said)
        case "28P01" | "28000":
            hint = password_hint or (
                "its data holds another password or role: put the right one into DATABASE_URL, "
                "or change it in the database with ALTER ROLE"
            )
            return fatal(f"cannot log in as {whom}: {said}; {hint}")
        case "3D000":
            return fatal(f"cannot log in as {whom}: {said}; create the database, or name another in DATABASE_URL")
        case "42501":
            return fatal(f"cannot log in as {whom}: {said}; GRANT CONNECT on the database to the user")
        case "53100":
            return fatal(f"the disk of the database is full: {said}; free some space there")
        case _:
            return waiting(f"{said} (SQLSTATE {error.sqlstate})")


def _whom(dsn: Secret) -> str:
    parts = urlsplit(dsn.reveal())
    return f"user {parts.username or '?'!r} at {parts.hostname or 'the local socket'}"
