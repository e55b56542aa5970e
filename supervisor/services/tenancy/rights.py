"""Rights as values, and those that the apps shall have: what is not among them is taken away. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from supervisor.services.tenancy.names import PUBLIC_SCHEMA, Slot, quoted
from supervisor.services.tenancy.tenant import Tenant, Wish

EVERYBODY = ""
"""As a grantee: PUBLIC, so every role of the server."""


class Target(StrEnum):
    """What a right is on; of the last three: on all that a schema has."""

    DATABASE = "database"
    SCHEMA = "schema"
    TABLES = "tables"
    SEQUENCES = "sequences"
    ROUTINES = "routines"


THINGS = (Target.TABLES, Target.SEQUENCES, Target.ROUTINES)
OWNER_PRIVILEGES = {
    Target.TABLES: ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER"),
    Target.SEQUENCES: ("USAGE", "SELECT", "UPDATE"),
    Target.ROUTINES: ("EXECUTE",),
}
_USER_PRIVILEGES = OWNER_PRIVILEGES | {Target.TABLES: ("SELECT", "INSERT", "UPDATE", "DELETE")}
_READER_PRIVILEGES: dict[Target, tuple[str, ...]] = {Target.TABLES: ("SELECT",)}


@dataclass(frozen=True, order=True)
class Right:
    """That `grantee` may do `privilege` on `name`; with `creator` on what that role is yet to make there.

    `name` is a database's, or a schema's; with `creator` it may be empty, for all schemas.
    """

    target: Target
    name: str
    grantee: str
    privilege: str
    creator: str = ""


def creators(wish: Wish, tenant: Tenant) -> tuple[str, ...]:
    """Who makes things in an app's schemas: the install's role, and where it owns them the app.

    Its logins too: a session's SET ROLE NONE ends what a login begins with, and leaves its inherited rights. (DISCARD
    ALL and RESET ROLE, which poolers send, go back to the role a login begins with.)
    """
    if not tenant.owner:
        return (wish.install,)
    return (wish.role(tenant), *(wish.login(tenant, slot) for slot in Slot), wish.install)


def makers(wish: Wish) -> frozenset[str]:
    """All roles whose new things are watched: functions of theirs are not everybody's to run."""
    roles = {role for tenant in apart(wish) for role in (wish.role(tenant), *(wish.login(tenant, s) for s in Slot))}
    return frozenset({*roles, wish.install} if roles else ())


def wanted_rights(wish: Wish) -> frozenset[Right]:
    """All rights that the apps shall have other than by owning; PUBLIC has none."""
    return frozenset(right for tenant in apart(wish) for right in _rights_of(wish, tenant))


def apart(wish: Wish) -> tuple[Tenant, ...]:
    """The apps that are kept apart; the one app of a simple install is not."""
    return tuple(tenant for tenant in wish.tenants if not tenant.whole)


def _rights_of(wish: Wish, tenant: Tenant) -> Iterator[Right]:
    role = wish.role(tenant)
    # CREATE: tools such as drizzle ask for their schema (IF NOT EXISTS) first of all, which Postgres refuses without
    # it even where the schema is there. What an app makes this way is its own, and nobody else's to use.
    for privilege in ("CONNECT", "TEMPORARY", *(["CREATE"] * tenant.owner)):
        yield Right(Target.DATABASE, wish.database, role, privilege)
    for schema in tenant.schemas:
        if tenant.owner:
            makers = [maker for maker in creators(wish, tenant) if maker != role]
            yield from _default_rights(schema, role, makers, OWNER_PRIVILEGES)
        else:
            yield from _schema_rights(schema, role, creators(wish, tenant), _USER_PRIVILEGES)
    for app in tenant.reads:
        other = wish.tenant(app)
        for schema in other.schemas:
            yield from _schema_rights(schema, role, creators(wish, other), _READER_PRIVILEGES)


def _schema_rights(
    schema: str, role: str, makers: Iterable[str], privileges: dict[Target, tuple[str, ...]]
) -> Iterator[Right]:
    yield Right(Target.SCHEMA, schema, role, "USAGE")
    for target, names in privileges.items():
        for privilege in names:
            yield Right(target, schema, role, privilege)
    yield from _default_rights(schema, role, makers, privileges)


def _default_rights(
    schema: str, role: str, makers: Iterable[str], privileges: dict[Target, tuple[str, ...]]
) -> Iterator[Right]:
    for maker in makers:
        for target, names in privileges.items():
            for privilege in names:
                yield Right(target, schema, role, privilege, creator=maker)


def implied_rights(role: str) -> frozenset[Right]:
    """What Postgres gives with a role that is made: everybody may run its functions, in whatever schema."""
    return frozenset({Right(Target.ROUTINES, "", EVERYBODY, "EXECUTE", creator=role)})


def grant_sql(rights: Iterable[Right], *, revoke: bool = False) -> Iterator[str]:
    """The statements that give (or take) them, one for all privileges of a role on one thing."""
    grouped: dict[tuple[Target, str, str, str], list[str]] = {}
    for right in sorted(rights):
        key = (right.target, right.name, right.creator, right.grantee)
        grouped.setdefault(key, []).append(right.privilege)
    for (target, name, creator, grantee), privileges in grouped.items():
        whom = quoted(grantee) if grantee else "PUBLIC"
        verb, way = ("REVOKE", "FROM") if revoke else ("GRANT", "TO")
        sql = f"{verb} {', '.join(privileges)} ON {_thing(target, name, creator)} {way} {whom}"
        if creator:
            place = f" IN SCHEMA {quoted(name)}" if name else ""
            sql = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(creator)}{place} {sql}"
        yield sql


def _thing(target: Target, name: str, creator: str) -> str:
    if creator:
        return target.upper()
    if target in (Target.DATABASE, Target.SCHEMA):
        return f"{target.upper()} {quoted(name)}"
    return f"ALL {target.upper()} IN SCHEMA {quoted(name)}"


def wanted_owners(wish: Wish) -> dict[str, str]:
    """Who shall own each declared schema; `public` only where an app has it."""
    return {
        schema: wish.role(tenant) if tenant.owner else wish.install
        for tenant in apart(wish)
        for schema in tenant.schemas
    }


def watched_schemas(wish: Wish) -> tuple[str, ...]:
    """The schemas that may be there without us and are looked at all the same."""
    return tuple(sorted({PUBLIC_SCHEMA, *wanted_owners(wish)}))
