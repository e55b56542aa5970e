"""Proves what each app may do and what not, by logging in as it and trying. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.attempts import (
    TABLE_PRIVILEGES,
    Attempt,
    Sample,
    allowed_on_tables,
    attempts,
    closed_databases,
)
from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.rights import apart, watched_schemas
from supervisor.services.tenancy.session import Session, can_log_in, open_session, url_for
from supervisor.services.tenancy.tenant import Tenant, Wish

_LIMIT_SECONDS = 30.0
_REFUSED = "42501"
_GONE = frozenset({"42P01", "3F000", "42703"})  # a table, schema or column that a migration has just dropped
_SHOWN = 20
_SELF = """
SELECT current_user::text AS role, current_schemas(false)::text[] AS path,
       ARRAY(SELECT rolname::text FROM pg_roles WHERE pg_has_role(session_user, oid, 'MEMBER')
                AND rolname NOT IN (session_user, current_user) ORDER BY 1) AS groups
"""
_SCHEMAS = """
SELECT n.nspname::text FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
 WHERE n.nspname = ANY($1) OR (r.rolname = ANY($2) AND r.rolname <> current_user) ORDER BY 1
"""
_SAMPLES = """
SELECT DISTINCT ON (n.nspname) n.nspname::text AS schema, c.relname::text AS table, a.attname::text AS column
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p')
   AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND deptype = 'e')
 ORDER BY n.nspname, c.oid DESC, a.attnum
"""
# Every table, by what the server itself would answer; a right of a single column counts.
_HELD = """
SELECT n.nspname::text AS schema, c.relname::text AS table,
       ARRAY(SELECT p FROM unnest($2::text[]) p WHERE has_table_privilege(c.oid, p)
              OR (p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(c.oid, p))) AS held
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_schema_privilege(n.oid, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = 'pg_class'::regclass AND x.objid = c.oid AND deptype = 'e')
"""


async def verify_postgres(server: Secret, wish: Wish) -> None:
    """Log in as every app and try what is declared and what is not; `server` is any URL of the database.

    Everything is tried in transactions that are rolled back. Raises ConfigurationError with every right that is not as
    declared, and what `open_session` raises where an app cannot log in.
    """
    wrong: list[str] = []
    for tenant in wish.tenants:
        for slot in Slot:
            password = wish.logins.get((tenant.app, slot))
            if password is not None:
                wrong += await _verify_login(server, wish, tenant, wish.login(tenant, slot), password)
    if wrong:
        shown = wrong[:_SHOWN] + ([f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else [])
        raise ConfigurationError(
            f"cannot trust that the apps are kept apart: {'; '.join(shown)}; run `supervisor tenancy apply`, and see "
            f"what it says is left as it is"
        )


async def _verify_login(server: Secret, wish: Wish, tenant: Tenant, login: str, password: Secret) -> list[str]:
    wrong: list[str] = []
    url = url_for(server, role=login, password=password, database=wish.database)
    async with open_session(url, doing=f"log in as {login!r}", limit_seconds=_LIMIT_SECONDS) as session:
        wrong += await _verify_self(session, wish, tenant)
        if not tenant.whole:
            wrong += await _verify_rights(session, wish, tenant)
    for database in closed_databases(wish):
        if await can_log_in(url_for(server, role=login, password=password, database=database)):
            wrong.append(f"it may enter database {database!r}")
    return [f"app {tenant.app!r} as {login!r}: {each}" for each in wrong]


async def _verify_self(session: Session, wish: Wish, tenant: Tenant) -> list[str]:
    row = await session.fetchrow(_SELF)
    assert row is not None
    wrong = []
    if row["role"] != wish.role(tenant):
        wrong.append(f"it acts as {row['role']!r} and not as {wish.role(tenant)!r}")
    if not tenant.whole and tuple(row["path"]) != tenant.schemas:
        wrong.append(f"its search_path is {', '.join(row['path']) or 'empty'} and not {', '.join(tenant.schemas)}")
    if not tenant.whole:
        wrong += [f"it is a member of role {group!r}" for group in row["groups"]]
    return wrong


async def _verify_rights(session: Session, wish: Wish, tenant: Tenant) -> list[str]:
    roles = [wish.role(each) for each in apart(wish)]
    schemas = [row["nspname"] for row in await session.fetch(_SCHEMAS, list(watched_schemas(wish)), roles)]
    found = await session.fetch(_SAMPLES, schemas)
    samples = [Sample(row["schema"], row["table"], row["column"]) for row in found]
    wrong = [
        finding
        for attempt in attempts(wish, tenant, schemas, samples)
        if (finding := await _try(session, attempt)) is not None
    ]
    held = await session.fetch(_HELD, schemas, list(TABLE_PRIVILEGES))
    return [*wrong, *_compare(wish, tenant, held, wrong)]


def _compare(wish: Wish, tenant: Tenant, held: Sequence[Any], known: Sequence[str]) -> list[str]:
    """What the tries have not found already."""
    wrong = []
    for row in held:
        wanted, has = allowed_on_tables(wish, tenant, row["schema"]), set(row["held"])
        thing = f"{row['schema']}.{row['table']}"
        wrong += [f"it may {each} on {thing}, which is not declared" for each in sorted(has - wanted)]
        wrong += [f"it may not {each} on {thing}, which is declared" for each in sorted(wanted - has)]
    return [each for each in wrong if each not in known]


async def _try(session: Session, attempt: Attempt) -> str | None:
    """What is wrong; None where the server answers as declared."""
    refused = False
    transaction = session.transaction()
    await transaction.start()
    try:
        await session.execute("SET LOCAL lock_timeout = '2s'")
        await session.execute(attempt.sql)
    except asyncpg.PostgresError as error:
        if error.sqlstate in _GONE:
            return None
        if error.sqlstate != _REFUSED:
            return f"it could not try to {attempt.what}: {error}"
        refused = True
    finally:
        await transaction.rollback()
    if refused is not attempt.allowed:
        return None
    if attempt.allowed:
        return f"it may not {attempt.what}, which is declared"
    return f"it may {attempt.what}, which is not declared"
