"""The difference between what is declared and what a database holds, as statements in their order. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from supervisor.core.errors import ConfigurationError
from supervisor.services.tenancy.names import PUBLIC_SCHEMA, Slot, literal, quoted
from supervisor.services.tenancy.observed import Observed, Owned, Role, mark, marked_app
from supervisor.services.tenancy.rights import (
    EVERYBODY,
    THINGS,
    Right,
    Target,
    apart,
    grant_sql,
    implied_rights,
    makers,
    wanted_owners,
    wanted_rights,
)
from supervisor.services.tenancy.tenant import Tenant, Wish

CLOSED_TO_ALL = ("postgres", "template1")
"""Databases of every server that everybody may enter, with nothing in them for an app."""


@dataclass(frozen=True)
class Statement:
    """One step. With `password_of`, the role's verifier is put in its place where it is run, and nowhere else."""

    sql: str
    password_of: str = ""


@dataclass(frozen=True)
class Plan:
    """What to run, in one transaction, and what people must know of what is left as it is."""

    statements: tuple[Statement, ...] = ()
    notes: tuple[str, ...] = ()


def plan_tenancy(wish: Wish, observed: Observed, *, hand_over: bool = False, confirm: bool = False) -> Plan:
    """What makes the database as declared; empty where it is.

    `hand_over`: what the install's role made in a schema before an app had it becomes the app's. `confirm`: roles,
    schemas and data of apps that are no longer declared are dropped; else they are kept and locked.
    Raises ConfigurationError for roles and schemas that somebody else made.
    """
    return _Planner(wish, observed, hand_over=hand_over, confirm=confirm).make()


class _Planner:
    def __init__(self, wish: Wish, observed: Observed, *, hand_over: bool, confirm: bool) -> None:
        self._wish = wish
        self._seen = observed
        self._hand_over = hand_over
        self._confirm = confirm
        self._notes: list[str] = []
        # The install's role saves and brings back the whole database; who has no superuser needs its roles' rights.
        rulers = {wish.install: observed.install_is_superuser, observed.admin: observed.superuser}
        self._rulers = tuple(sorted(role for role, mighty in rulers.items() if not mighty))
        self._owners = wanted_owners(wish)
        self._ours = {name for name, role in observed.roles.items() if marked_app(wish.stack, role.comment)}

    def make(self) -> Plan:
        # Taken before anything changes hands: from an owner, it would be the owner's own rights.
        before = chain(self._roles(), self._taken(), self._schemas(), self._things(), self._given())
        statements = (*map(Statement, before), *self._logins(), *map(Statement, self._gone()))
        return Plan(statements, tuple(self._notes))

    def _roles(self) -> Iterator[str]:
        for tenant in self._wish.tenants:
            owner = self._wish.role(tenant)
            if not tenant.whole:
                yield from self._role(tenant, owner, member_of=frozenset())
            for slot in Slot:
                yield from self._role(tenant, self._wish.login(tenant, slot), member_of=frozenset({owner}))

    def _role(self, tenant: Tenant, name: str, *, member_of: frozenset[str]) -> Iterator[str]:
        role = self._seen.roles.get(name)
        if role is None:
            yield (
                f"CREATE ROLE {quoted(name)} NOLOGIN NOSUPERUSER NOCREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS "
                f"INHERIT"
            )
            yield f"COMMENT ON ROLE {quoted(name)} IS {literal(mark(self._wish.stack, tenant.app))}"
        else:
            self._require_ours(tenant, name, role)
            yield from _weakened(name, role)
        role = role or Role()
        for other in sorted(role.member_of - member_of - set(self._rulers)):
            yield f"REVOKE {quoted(other)} FROM {quoted(name)}"
        for other in sorted(member_of - role.member_of):
            yield f"GRANT {quoted(other)} TO {quoted(name)}"
        for ruler in () if tenant.whole else self._rulers:
            if ruler not in role.used_by:
                how = " WITH INHERIT TRUE, SET TRUE" if self._seen.version >= 160000 else ""
                yield f"GRANT {quoted(name)} TO {quoted(ruler)}{how}"

    def _require_ours(self, tenant: Tenant, name: str, role: Role) -> None:
        if marked_app(self._wish.stack, role.comment) != tenant.app:
            raise ConfigurationError(
                f"cannot use role {name!r} for app {tenant.app!r}: somebody else made it; rename it or the app, or "
                f"hand it over: COMMENT ON ROLE {quoted(name)} IS {literal(mark(self._wish.stack, tenant.app))}"
            )

    def _schemas(self) -> Iterator[str]:
        for tenant in apart(self._wish):
            for name in tenant.schemas:
                yield from self._schema(tenant, name, self._owners[name])
        public = self._seen.schemas.get(PUBLIC_SCHEMA)
        if public is not None and PUBLIC_SCHEMA not in self._owners and public.owner in self._ours:
            yield f"ALTER SCHEMA public OWNER TO {quoted(self._wish.install)}"

    def _schema(self, tenant: Tenant, name: str, owner: str) -> Iterator[str]:
        schema = self._seen.schemas.get(name)
        comment = f"COMMENT ON SCHEMA {quoted(name)} IS {literal(mark(self._wish.stack, tenant.app))}"
        if schema is None:
            yield f"CREATE SCHEMA {quoted(name)} AUTHORIZATION {quoted(owner)}"
            if name != PUBLIC_SCHEMA:
                yield comment
        elif schema.owner != owner:
            self._require_free(tenant, name, schema.owner)
            yield f"ALTER SCHEMA {quoted(name)} OWNER TO {quoted(owner)}"

    def _require_free(self, tenant: Tenant, name: str, owner: str) -> None:
        """Of our own roles only the app's may hand it over: another's schema is another's data."""
        known = {self._wish.install, self._seen.admin, *self._roles_of(tenant.app)}
        if name != PUBLIC_SCHEMA and owner not in known:
            raise ConfigurationError(
                f"cannot give schema {name!r} to app {tenant.app!r}: it is role {owner!r}'s; choose another "
                f"(`[apps.{tenant.app}] database = {{schema = ...}}`), or hand it over: "
                f"ALTER SCHEMA {quoted(name)} OWNER TO {quoted(self._wish.install)}"
            )

    def _roles_of(self, app: str) -> set[str]:
        return {name for name in self._ours if marked_app(self._wish.stack, self._seen.roles[name].comment) == app}

    def _things(self) -> Iterator[str]:
        """What is in the schemas; what a login made itself (see `creators`) always becomes its app's."""
        for login in self._seen.strays:
            owner = next((each for each in self._seen.roles[login].member_of if each in self._ours), "")
            if owner:
                yield f"REASSIGN OWNED BY {quoted(login)} TO {quoted(owner)}"
        waiting: dict[tuple[str, str], list[Owned]] = {}
        for thing in self._seen.owned:
            if thing.owner in self._seen.strays:
                continue
            if self._may_move(thing):
                yield f"ALTER {thing.kind} {thing.name} OWNER TO {quoted(self._owners[thing.schema])}"
            else:
                waiting.setdefault((thing.schema, thing.owner), []).append(thing)
        for (schema, owner), things in waiting.items():
            self._notes.append(
                f"{len(things)} {'thing' if len(things) == 1 else 'things'} in schema {schema!r} "
                f"({_some([thing.name for thing in things])}) belong to role {owner!r} and not to "
                f"{self._owners[schema]!r}, so their app may not use them; hand them over with --hand-over"
            )

    def _may_move(self, thing: Owned) -> bool:
        """In a schema that we made, what we or the install made is the app's; in one that was there, when told to."""
        known = {self._wish.install, self._seen.admin} | (self._ours if thing.schema != PUBLIC_SCHEMA else set())
        schema = self._seen.schemas.get(thing.schema)
        made_by_us = schema is not None and bool(marked_app(self._wish.stack, schema.comment))
        return thing.owner in known and (made_by_us or self._hand_over)

    def _taken(self) -> Iterator[str]:
        wanted = wanted_rights(self._wish)
        new = makers(self._wish) - self._seen.roles.keys() - {self._wish.install}
        some = self._seen.some.union(*map(implied_rights, new))
        yield from grant_sql((right for right in some - wanted if not self._is_owner_s(right)), revoke=True)
        for schema, routine in self._seen.open_routines:
            yield f"REVOKE EXECUTE ON ROUTINE {quoted(schema)}.{routine} FROM PUBLIC"
        if apart(self._wish) and self._wish.ours:
            yield from self._close_databases()

    def _is_owner_s(self, right: Right) -> bool:
        """A right on things of a schema whose owner it is, or becomes: it comes with owning them."""
        return right.target in THINGS and not right.creator and self._owners.get(right.name) == right.grantee

    def _given(self) -> Iterator[str]:
        """An owner that hands things over has lost what it could do with them."""
        leaving = {(thing.schema, thing.owner) for thing in self._seen.owned if self._may_move(thing)}
        full = {right for right in self._seen.full if (right.name, right.grantee) not in leaving or right.creator}
        yield from grant_sql(wanted_rights(self._wish) - full)

    def _close_databases(self) -> Iterator[str]:
        for database in self._seen.open_databases:
            if database in CLOSED_TO_ALL:
                rights = [Right(Target.DATABASE, database, EVERYBODY, each) for each in ("CONNECT", "TEMPORARY")]
                yield from grant_sql(rights, revoke=True)
            else:
                self._notes.append(
                    f"every role may enter database {database!r} of this server, the apps' too; close it: "
                    f"REVOKE CONNECT ON DATABASE {quoted(database)} FROM PUBLIC"
                )

    def _logins(self) -> Iterator[Statement]:
        passwords = self._wish.passwords()
        database = quoted(self._wish.database)
        for tenant in self._wish.tenants:
            for slot in Slot:
                name = self._wish.login(tenant, slot)
                role = self._seen.roles.get(name, Role())
                for key, value, sql in self._settings(tenant):
                    if _flat(role.settings.get(key, "")) != _flat(value):
                        yield Statement(f"ALTER ROLE {quoted(name)} IN DATABASE {database} SET {key} TO {sql}")
                if name in passwords:
                    if not (role.can_login and role.fits):
                        yield Statement(f"ALTER ROLE {quoted(name)} LOGIN PASSWORD", password_of=name)
                elif role.can_login:
                    yield Statement(lock_sql(name))

    def _settings(self, tenant: Tenant) -> Iterator[tuple[str, str, str]]:
        role = self._wish.role(tenant)
        yield "role", role, literal(role)
        if not tenant.whole:
            names = [quoted(schema) for schema in tenant.schemas]
            yield "search_path", ", ".join(names), ", ".join(names)

    def _gone(self) -> Iterator[str]:
        """Apps that are declared no more; each one's roles and schemas."""
        declared = {tenant.app for tenant in self._wish.tenants}
        schemas = {name: marked_app(self._wish.stack, each.comment) for name, each in self._seen.schemas.items()}
        roles = {name: marked_app(self._wish.stack, self._seen.roles[name].comment) for name in self._ours}
        for app in sorted({*schemas.values(), *roles.values()} - declared - {""}):
            yield from self._gone_app(
                app,
                sorted(name for name, whose in roles.items() if whose == app),
                sorted(name for name, whose in schemas.items() if whose == app and name not in self._owners),
            )
        for name, whose in sorted(schemas.items()):
            if whose in declared and name not in self._owners:
                yield from self._gone_schema(whose, name)

    def _gone_app(self, app: str, roles: list[str], schemas: list[str]) -> Iterator[str]:
        if not self._confirm:
            yield from (lock_sql(name) for name in roles if self._seen.roles[name].can_login)
            held = f"; its data stays in schema {_some(schemas)}" if schemas else ""
            self._notes.append(
                f"app {app!r} is no longer declared: nobody can log in as it{held}; --confirm drops its roles"
                f"{' and its data' if schemas else ''}"
            )
            return
        yield from (f"DROP SCHEMA {quoted(name)} CASCADE" for name in schemas)
        for name in sorted(roles, key=len, reverse=True):  # the logins are members of the shortest
            yield f"REASSIGN OWNED BY {quoted(name)} TO {quoted(self._wish.install)}"
            yield f"DROP OWNED BY {quoted(name)}"
            yield f"DROP ROLE {quoted(name)}"

    def _gone_schema(self, app: str, name: str) -> Iterator[str]:
        if self._confirm:
            yield f"DROP SCHEMA {quoted(name)} CASCADE"
        else:
            self._notes.append(
                f"schema {name!r} of app {app!r} is no longer declared: its data is kept; --confirm drops it"
            )


def _weakened(name: str, role: Role) -> Iterator[str]:
    lacking = [f"NO{power}" for power in role.power] + ([] if role.inherits else ["INHERIT"])
    if lacking:
        yield f"ALTER ROLE {quoted(name)} {' '.join(lacking)}"


def lock_sql(login: str) -> str:
    """Nobody logs in as it any more; sessions that it has live on."""
    return f"ALTER ROLE {quoted(login)} NOLOGIN PASSWORD NULL"


def _flat(setting: str) -> tuple[str, ...]:
    """A list of names, however it is quoted."""
    return tuple(part.strip().strip('"').replace('""', '"') for part in setting.split(","))


def _some(names: list[str], most: int = 3) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
