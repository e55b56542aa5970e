"""What is declared of an app's place in the database, all apps together checked for what cannot be. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.services.tenancy.names import LONGEST, PUBLIC_SCHEMA, Slot, login_name, role_name, schema_name

_KEPT_SCHEMAS = frozenset({"information_schema", "none"})


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One app with a database, as `[apps.NAME] database` says it.

    `owner`: the app owns its schema, so that its migrations may run as it; else it uses tables that the install's role
    makes. `public`: schema `public` is its own too. `reads`: apps whose schemas it may read. `whole`: the one app of an
    install without `[apps]`, whose role is the install's own: all is its.
    """

    app: str
    schema: str = ""
    owner: bool = True
    public: bool = False
    reads: tuple[str, ...] = ()
    whole: bool = False

    @property
    def home(self) -> str:
        """The schema its unqualified names are made in."""
        return self.schema or schema_name(self.app)

    @property
    def schemas(self) -> tuple[str, ...]:
        """All that are its, in the order of its search_path."""
        return (self.home, PUBLIC_SCHEMA) if self.public and self.home != PUBLIC_SCHEMA else (self.home,)


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Everything the database should hold.

    `install` is the stack's own role, which owns the database. `logins` are the passwords that shall be good, by app
    and slot: one each, two while a password is being changed. `ours`: the server is the stack's alone, so that its
    other databases are closed to the apps as well.
    """

    stack: str
    install: str
    database: str
    tenants: tuple[Tenant, ...]
    logins: Mapping[tuple[str, Slot], Secret] = field(default_factory=dict)
    ours: bool = True

    def __post_init__(self) -> None:
        if mistakes := list(_mistakes(self.tenants)):
            raise ConfigurationError(f"cannot set up the apps' databases: {'; '.join(mistakes)}; correct [apps]")
        self._require_distinct_roles()

    def role(self, tenant: Tenant) -> str:
        """The role that owns what is the app's."""
        return self.install if tenant.whole else role_name(self.stack, tenant.app)

    def login(self, tenant: Tenant, slot: Slot) -> str:
        """What the app logs in as."""
        return login_name(role_name(self.stack, tenant.app), slot)

    def passwords(self) -> dict[str, Secret]:
        """The passwords by login."""
        return {
            self.login(tenant, slot): password
            for tenant in self.tenants
            for slot in Slot
            if (password := self.logins.get((tenant.app, slot))) is not None
        }

    def tenant(self, app: str) -> Tenant:
        """The app of that name. Raises KeyError."""
        return {tenant.app: tenant for tenant in self.tenants}[app]

    def _require_distinct_roles(self) -> None:
        taken: dict[str, str] = {self.install: "the install's own role"}
        for tenant in self.tenants:
            names = [self.login(tenant, slot) for slot in Slot]
            names += [] if tenant.whole else [self.role(tenant)]
            for name in names:
                if name in taken:
                    raise ConfigurationError(
                        f"cannot make a role for app {tenant.app!r}: {name!r} is also {taken[name]}; rename the app"
                    )
                taken[name] = f"a role of app {tenant.app!r}"


def _mistakes(tenants: Sequence[Tenant]) -> Iterator[str]:
    names = {tenant.app for tenant in tenants}
    taken: dict[str, str] = {}
    for tenant in tenants:
        if tenant.whole and len(tenants) > 1:
            yield f"app {tenant.app!r} has the whole database, so there can be no other"
        if tenant.home == PUBLIC_SCHEMA and not tenant.public:
            yield f"app {tenant.app!r} has schema 'public' without `public = true`"
        for schema in tenant.schemas:
            if why := _unfit(schema):
                yield f"app {tenant.app!r} cannot have schema {schema!r}: {why}"
            if schema in taken:
                yield f"apps {taken[schema]!r} and {tenant.app!r} both have schema {schema!r}"
            taken[schema] = tenant.app
        for other in tenant.reads:
            if other == tenant.app or other not in names:
                why = "is itself" if other == tenant.app else "is no app with a database"
                yield f"app {tenant.app!r} reads {other!r}, which {why}"


def _unfit(schema: str) -> str:
    if schema.startswith("pg_") or schema in _KEPT_SCHEMAS:
        return "Postgres keeps that name for itself"
    if len(schema.encode()) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return "it has a zero byte" if "\0" in schema else ""
