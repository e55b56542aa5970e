"""One real Postgres (or Redis) for a whole module of tests; every test has its own stack and database in it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg

from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer
from supervisor.process.child import Child
from supervisor.services.embedded.postgres import EmbeddedPostgres
from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.postgres import PostgresTenancy
from supervisor.services.tenancy.session import url_for
from supervisor.services.tenancy.tenant import Tenant, Wish
from tests.services.embedded_rig import Rig, answered

Connection: TypeAlias = "asyncpg.Connection[Any]"

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
_NUMBERS = itertools.count(1)


@dataclass
class Server:
    """A running Postgres and its superuser's URL."""

    rig: Rig
    child: Child
    superuser: Secret

    @asynccontextmanager
    async def stack(self, *, name: str = "") -> AsyncIterator[Stack]:
        """A database of its own, as an install makes it; another test's is not seen."""
        name = name or f"stack-{next(_NUMBERS)}"
        async with connected(self.superuser) as root:
            await root.execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'install'")
            await root.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
            await root.execute(f'REVOKE CONNECT, TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
            try:
                yield Stack(name, url_for(self.superuser, role="postgres", password=_password(self), database=name))
            finally:
                await root.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _password(server: Server) -> Secret:
    return server.rig.secrets.get_or_make("postgres-superuser")


@dataclass
class Stack:
    """One install's database. `admin` is the superuser's URL of it."""

    name: str
    admin: Secret
    passwords: dict[tuple[str, Slot], Secret] = field(default_factory=dict)

    @property
    def tenancy(self) -> PostgresTenancy:
        return PostgresTenancy(self.admin, limit_seconds=20.0)

    @property
    def install(self) -> Secret:
        return url_for(self.admin, role=self.name, password=Secret("install"))

    def wish(self, *tenants: Tenant) -> Wish:
        for tenant in tenants:
            if not any(app == tenant.app for app, _ in self.passwords):
                self.passwords[tenant.app, Slot.A] = Secret(f"pass-of-{tenant.app}")
        names = {tenant.app for tenant in tenants}
        return Wish(
            stack=self.name,
            install=self.name,
            database=self.name,
            tenants=tenants,
            logins={key: value for key, value in self.passwords.items() if key[0] in names},
        )

    def url(self, app: str, slot: Slot = Slot.A) -> Secret:
        return url_for(self.admin, role=f"{self.name}_{app}_{slot}", password=self.passwords[app, slot])


@asynccontextmanager
async def connected(dsn: Secret) -> AsyncIterator[Connection]:
    connection: Connection = await asyncpg.connect(dsn.reveal(), ssl=False, timeout=10, statement_cache_size=0)
    try:
        yield connection
    finally:
        await connection.close()


async def execute(dsn: Secret, *statements: str) -> None:
    """Run them, one after the other."""
    async with connected(dsn) as connection:
        for statement in statements:
            await connection.execute(statement)


async def value(dsn: Secret, sql: str) -> Any:
    """What a query gives."""
    async with connected(dsn) as connection:
        return await connection.fetchval(sql)


async def refused(dsn: Secret, *statements: str) -> None:
    """Each of them must be refused by the server for want of a right."""
    async with connected(dsn) as connection:
        for statement in statements:
            try:
                await connection.execute(statement)
            except asyncpg.InsufficientPrivilegeError:
                continue
            raise AssertionError(f"the server let {statement!r} pass")


def room(rig: Rig, name: str) -> Rig:
    """A state folder of its own beside others under one reaper: a process can have but one, as it reaps everything."""
    state = rig.state / name
    state.mkdir(mode=0o711)
    return Rig(state, rig.reaper)


async def start_postgres(rig: Rig, binaries: Path | None = None) -> Server:
    """A server that logs every statement; ended with the rig."""
    values = {"postgres_bin_dir": binaries} if binaries is not None else {}
    postgres: EmbeddedPostgres = rig.postgres(stack="install", **values)
    command = await postgres.prepare()
    child = rig.spawn(replace(command, argv=[*command.argv, "-c", "log_statement=all", "-c", "fsync=off"]))
    await answered(postgres.probe, Answer.GOOD)
    password = rig.secrets.get_or_make("postgres-superuser")
    return Server(rig, child, url_for(postgres.dsn, role="postgres", password=password, database="install"))
