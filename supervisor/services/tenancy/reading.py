"""Reads from a database what it holds of what is declared. Nothing is changed; one session, several queries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.observed import Observed, Owned, Role, Schema, mark, marked_app
from supervisor.services.tenancy.rights import (
    EVERYBODY,
    THINGS,
    Right,
    Target,
    apart,
    implied_rights,
    makers,
    wanted_owners,
    wanted_rights,
    watched_schemas,
)
from supervisor.services.tenancy.tenant import Wish
from supervisor.services.tenancy.verifier import fits

Session: TypeAlias = "asyncpg.Connection[Any]"

_SELF = """
SELECT current_user::text AS name, r.rolsuper, r.rolcreaterole, current_setting('server_version_num')::int AS version,
       pg_has_role(current_user, d.datdba, 'USAGE') AS owns_database,
       COALESCE((SELECT rolsuper FROM pg_roles WHERE rolname = $1), false) AS install_is_superuser
  FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""
_ROLES = """
SELECT r.rolname, r.rolcanlogin, r.rolinherit,
       array_remove(ARRAY[CASE WHEN r.rolsuper THEN 'SUPERUSER' END, CASE WHEN r.rolcreaterole THEN 'CREATEROLE' END,
         CASE WHEN r.rolcreatedb THEN 'CREATEDB' END, CASE WHEN r.rolreplication THEN 'REPLICATION' END,
         CASE WHEN r.rolbypassrls THEN 'BYPASSRLS' END], NULL) AS power,
       shobj_description(r.oid, 'pg_authid') AS comment,
       ARRAY(SELECT g.rolname::text FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
              WHERE m.member = r.oid) AS member_of,
       ARRAY(SELECT u.rolname::text FROM pg_roles u WHERE u.rolname = ANY($2) AND pg_has_role(u.oid, r.oid, 'USAGE')
            ) AS used_by,
       COALESCE((SELECT s.setconfig FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase
                  WHERE s.setrole = r.oid AND d.datname = current_database()), '{}') AS settings
  FROM pg_roles r
 WHERE r.rolname = ANY($1) OR starts_with(shobj_description(r.oid, 'pg_authid'), $3)
"""
_VERIFIERS = "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = ANY($1) AND rolpassword IS NOT NULL"
_SCHEMAS = """
SELECT n.nspname, r.rolname AS owner, COALESCE(obj_description(n.oid, 'pg_namespace'), '') AS comment
  FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner
 WHERE n.nspname = ANY($1) OR r.rolname = ANY($2) OR starts_with(obj_description(n.oid, 'pg_namespace'), $3)
"""
# Rows: target, name, grantee ('' is PUBLIC), privilege, creator. Whoever owns a thing has its rights anyhow.
_RIGHTS = """
WITH acl AS (
  SELECT 'database' AS target, d.datname AS name, d.datdba AS owner, 0::oid AS creator,
         COALESCE(d.datacl, acldefault('d', d.datdba)) AS acl
    FROM pg_database d WHERE d.datname = current_database()
  UNION ALL
  SELECT 'schema', n.nspname, n.nspowner, 0, COALESCE(n.nspacl, acldefault('n', n.nspowner))
    FROM pg_namespace n WHERE n.nspname = ANY($1)
  UNION ALL
  SELECT CASE a.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' ELSE 'routines' END,
         COALESCE(n.nspname, ''), a.defaclrole, a.defaclrole, a.defaclacl
    FROM pg_default_acl a LEFT JOIN pg_namespace n ON n.oid = a.defaclnamespace
   WHERE a.defaclobjtype IN ('r', 'S', 'f') AND a.defaclrole IN (SELECT oid FROM pg_roles WHERE rolname = ANY($3))
     AND (a.defaclnamespace = 0 OR n.nspname = ANY($1))
)
SELECT a.target, a.name::text, COALESCE(g.rolname, '')::text AS grantee, e.privilege_type AS privilege,
       COALESCE(c.rolname, '')::text AS creator
  FROM acl a CROSS JOIN LATERAL aclexplode(a.acl) e
  LEFT JOIN pg_roles g ON g.oid = e.grantee LEFT JOIN pg_roles c ON c.oid = a.creator
 WHERE e.grantee <> a.owner AND (e.grantee = 0 OR g.rolname = ANY($2))
"""
_GLOBAL_DEFAULTS = """
SELECT r.rolname FROM pg_default_acl a JOIN pg_roles r ON r.oid = a.defaclrole
 WHERE a.defaclnamespace = 0 AND a.defaclobjtype = 'f' AND r.rolname = ANY($1)
"""
_LOOSE = (
    "NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '{}'::regclass AND x.objid = {}.oid AND x.deptype = 'e')"
)
"""Of no extension: what an extension has, it gives to whom it likes."""
# All things of a schema: target, schema, owner, and what lets others at it (columns' own rights among it).
_THINGS = f"""
WITH thing AS (
  SELECT CASE c.relkind WHEN 'S' THEN 'sequences' ELSE 'tables' END AS target, c.oid, n.nspname, c.relowner AS owner,
         c.relacl AS acl
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
   WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND {_LOOSE.format("pg_class", "c")}
  UNION ALL
  SELECT 'routines', p.oid, n.nspname, p.proowner, COALESCE(p.proacl, acldefault('f', p.proowner))
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
   WHERE n.nspname = ANY($1) AND {_LOOSE.format("pg_proc", "p")}
)"""  # noqa: S608  (constants)
_COUNTS = f"""{_THINGS}
SELECT t.target, t.nspname::text AS name, o.rolname::text AS owner, count(*) AS count
  FROM thing t JOIN pg_roles o ON o.oid = t.owner GROUP BY 1, 2, 3
"""  # noqa: S608
_HELD = f"""{_THINGS}
SELECT t.target, t.nspname::text AS name, COALESCE(g.rolname, '')::text AS grantee, e.privilege_type AS privilege,
       count(DISTINCT t.oid) AS count
  FROM thing t CROSS JOIN LATERAL aclexplode(t.acl) e LEFT JOIN pg_roles g ON g.oid = e.grantee
 WHERE e.grantee <> t.owner AND (g.rolname = ANY($2) OR (e.grantee = 0 AND t.target <> 'routines'))
 GROUP BY 1, 2, 3, 4
UNION ALL
SELECT 'tables', t.nspname::text, COALESCE(g.rolname, '')::text, e.privilege_type, 0
  FROM thing t JOIN pg_attribute a ON a.attrelid = t.oid AND t.target = 'tables' AND a.attacl IS NOT NULL
  CROSS JOIN LATERAL aclexplode(a.attacl) e LEFT JOIN pg_roles g ON g.oid = e.grantee
 WHERE e.grantee <> t.owner AND (e.grantee = 0 OR g.rolname = ANY($2))
"""  # noqa: S608
_OPEN_ROUTINES = f"""
SELECT n.nspname::text, quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')' AS routine
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = ANY($1) AND {_LOOSE.format("pg_proc", "p")}
   AND EXISTS (SELECT FROM aclexplode(COALESCE(p.proacl, acldefault('f', p.proowner))) e WHERE e.grantee = 0)
 ORDER BY 1, 2
"""  # noqa: S608
# Not pg_shdepend: it has nothing of the bootstrap superuser, which the engine's install is. What belongs to another
# thing (a serial's sequence, a table's row type, an array) goes with it.
_OWNED = """
WITH wanted AS (SELECT n.oid, n.nspname, w.owner FROM unnest($1::text[], $2::text[]) w(schema, owner)
                  JOIN pg_namespace n ON n.nspname = w.schema),
thing AS (
  SELECT 'pg_class'::regclass AS class, c.oid, c.relnamespace AS place, c.relowner AS owner FROM pg_class c
   WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
     AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                        AND c.relkind = 'S' AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i'))
  UNION ALL SELECT 'pg_proc'::regclass, oid, pronamespace, proowner FROM pg_proc
  UNION ALL SELECT 'pg_type'::regclass, t.oid, t.typnamespace, t.typowner FROM pg_type t
   WHERE t.typtype <> 'm' AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
     AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))
  UNION ALL SELECT 'pg_collation'::regclass, oid, collnamespace, collowner FROM pg_collation
  UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace, conowner FROM pg_conversion
  UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace, oprowner FROM pg_operator
  UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace, opcowner FROM pg_opclass
  UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace, opfowner FROM pg_opfamily
  UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, stxnamespace, stxowner FROM pg_statistic_ext
  UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace, cfgowner FROM pg_ts_config
  UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace, dictowner FROM pg_ts_dict
)
SELECT w.nspname::text AS schema, i.type, i.identity, r.rolname::text AS owner
  FROM thing t JOIN wanted w ON w.oid = t.place JOIN pg_roles r ON r.oid = t.owner
  CROSS JOIN LATERAL pg_identify_object(t.class, t.oid, 0) i
 WHERE r.rolname <> w.owner
   AND NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = t.class AND x.objid = t.oid AND x.deptype = 'e')
 ORDER BY 1, 2, 3
"""
_STRAYS = """
SELECT DISTINCT r.rolname::text FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
 WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND r.rolname = ANY($1)
   AND d.classid <> 'pg_default_acl'::regclass
   AND d.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
 ORDER BY 1
"""
_OPEN_DATABASES = """
SELECT d.datname::text FROM pg_database d
 WHERE d.datallowconn AND d.datname <> current_database()
   AND EXISTS (SELECT FROM aclexplode(COALESCE(d.datacl, acldefault('d', d.datdba))) e
                WHERE e.grantee = 0 AND e.privilege_type = 'CONNECT')
 ORDER BY 1
"""


@dataclass(frozen=True)
class _Names:
    """What the queries are about."""

    roles: list[str]
    logins: list[str]
    makers: list[str]


async def read_observed(session: Session, wish: Wish) -> Observed:
    """All the plan needs to know. Raises what asyncpg raises."""
    await session.execute("SET LOCAL search_path = pg_catalog")
    me = await session.fetchrow(_SELF, wish.install)
    assert me is not None
    names = _names(wish)
    roles = await _read_roles(session, wish, names, admin=me["name"], superuser=me["rolsuper"])
    ours = [name for name, role in roles.items() if marked_app(wish.stack, role.comment)]
    prefix = mark(wish.stack, "")
    found = await session.fetch(_SCHEMAS, list(watched_schemas(wish)), ours, prefix)
    schemas = {row["nspname"]: Schema(row["owner"], row["comment"]) for row in found}
    owners = wanted_owners(wish)
    # What our roles have made beside their schemas (`drizzle`) is theirs alone, too.
    closed = sorted({*owners, *(name for name, schema in schemas.items() if schema.owner in ours)})
    some, full = await _read_rights(session, wish, names, schemas=[*schemas], closed=closed)
    owned = await session.fetch(_OWNED, list(owners), list(owners.values()))
    routines = await session.fetch(_OPEN_ROUTINES, closed)
    return Observed(
        admin=me["name"],
        superuser=me["rolsuper"],
        may_create_roles=me["rolsuper"] or me["rolcreaterole"],
        owns_database=me["owns_database"],
        version=me["version"],
        install_is_superuser=me["install_is_superuser"],
        roles=roles,
        schemas=schemas,
        full=full,
        some=some,
        owned=tuple(Owned(row["schema"], _kind(row["type"]), row["identity"], row["owner"]) for row in owned),
        open_routines=tuple((row["nspname"], row["routine"]) for row in routines),
        strays=tuple(row["rolname"] for row in await session.fetch(_STRAYS, names.logins)),
        open_databases=tuple(row["datname"] for row in await session.fetch(_OPEN_DATABASES)),
    )


def _names(wish: Wish) -> _Names:
    logins = [wish.login(tenant, slot) for tenant in wish.tenants for slot in Slot]
    owners = [wish.role(tenant) for tenant in apart(wish)]
    return _Names([*owners, *logins], logins, sorted(makers(wish)))


async def _read_roles(session: Session, wish: Wish, names: _Names, *, admin: str, superuser: bool) -> dict[str, Role]:
    rows = await session.fetch(_ROLES, names.roles, [admin, wish.install], mark(wish.stack, ""))
    passwords = wish.passwords()
    verifiers: Mapping[str, str] = {}
    if superuser:
        verifiers = dict(await session.fetch(_VERIFIERS, [*passwords]))
    return {
        row["rolname"]: Role(
            comment=row["comment"] or "",
            can_login=row["rolcanlogin"],
            inherits=row["rolinherit"],
            power=tuple(row["power"]),
            member_of=frozenset(row["member_of"]),
            used_by=frozenset(row["used_by"]),
            settings=dict(_split(entry) for entry in row["settings"]),
            fits=fits(passwords[row["rolname"]], verifiers.get(row["rolname"], ""))
            if superuser and row["rolname"] in passwords
            else None,
        )
        for row in rows
    }


def _split(entry: str) -> tuple[str, str]:
    key, _, value = entry.partition("=")
    return key, value


async def _read_rights(
    session: Session, wish: Wish, names: _Names, *, schemas: Sequence[str], closed: Sequence[str]
) -> tuple[frozenset[Right], frozenset[Right]]:
    """Those held anywhere, and of these the ones held everywhere."""
    single = {_right(row, row["creator"]) for row in await session.fetch(_RIGHTS, schemas, names.roles, names.makers)}
    with_row = {row["rolname"] for row in await session.fetch(_GLOBAL_DEFAULTS, names.makers)}
    for maker in names.makers:
        if maker not in with_row:
            single |= implied_rights(maker)
    counts = await session.fetch(_COUNTS, closed)
    held = {
        _right(row, ""): int(row["count"])
        for row in sorted(await session.fetch(_HELD, closed, names.roles), key=_count)
    }
    full = {right for right, count in held.items() if count == _others(right, counts)}
    empty = _empty_rights(wish, counts)
    return frozenset(single | held.keys()), frozenset(single | full | empty)


def _count(row: Any) -> int:
    """A column's own right (0) is written over by one on a whole table."""
    return int(row["count"])


def _right(row: Any, creator: str) -> Right:
    return Right(Target(row["target"]), row["name"], row["grantee"] or EVERYBODY, row["privilege"], creator)


def _others(right: Right, counts: Iterable[Any]) -> int:
    """How many things there are that the role does not own."""
    return sum(
        int(row["count"])
        for row in counts
        if (row["target"], row["name"]) == (right.target, right.name) and row["owner"] != right.grantee
    )


def _empty_rights(wish: Wish, counts: Sequence[Any]) -> set[Right]:
    """On nothing every right is held."""
    wanted = (right for right in wanted_rights(wish) if right.target in THINGS and not right.creator)
    return {right for right in wanted if not _others(right, counts)}


def _kind(kind: str) -> str:
    """What pg_identify_object calls it, as ALTER does."""
    return "STATISTICS" if kind == "statistics object" else kind.upper()
