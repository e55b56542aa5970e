"""The apps' places in the stack's own Postgres and Redis: logins made and kept, rights set and proved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.core.events import Event, Notice, Publish, ServiceChanged, ServiceState, Warned
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.locks import app_login_lock, redis_lock
from supervisor.services.tenancy.names import Slot
from supervisor.services.tenancy.postgres import PostgresTenancy
from supervisor.services.tenancy.redis import RedisTenancy, verify_redis
from supervisor.services.tenancy.redis_rules import Keys, RedisWish
from supervisor.services.tenancy.rotation import Lock, Settled, recover
from supervisor.services.tenancy.tenant import Tenant, Wish
from supervisor.services.tenancy.verify import verify_postgres
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.rotating import RotatingSecret


def tenants(settings: Settings) -> tuple[Tenant, ...]:
    """What is declared of each app's place in the database; none where there is one app alone, which has all of it."""
    return tuple(
        Tenant(app=name, schema=place.schema_name, owner=place.owner, public=place.public, reads=place.reads)
        for name, app in settings.apps.items()
        if (place := app.database) is not None
    )


def keys(settings: Settings) -> tuple[Keys, ...]:
    """The same for Redis."""
    return tuple(Keys(name, app.redis.prefix) for name, app in settings.apps.items() if app.redis is not None)


class Kept:
    """An app's logins as they are kept: in the folder of its secrets, made on first use."""

    def __init__(self, secrets_folder: Path) -> None:
        self._folder = secrets_folder

    def database(self, app: str) -> RotatingSecret:
        """Texts of `Credential`."""
        return AppSecrets(self._folder, app).login("database")

    def redis(self, app: str) -> RotatingSecret:
        """Passwords."""
        return AppSecrets(self._folder, app).login("redis")

    def credential(self, app: str) -> Credential:
        """What the app logs in to Postgres with."""
        record = self.database(app)
        text = record.current()
        if text is None:
            record.put_current(Credential.make().text())
            text = record.current()
            assert text is not None
        return Credential.parse(text)

    def redis_password(self, app: str) -> Secret:
        """What the app logs in to Redis with."""
        record = self.redis(app)
        if (password := record.current()) is None:
            password = Credential.make().password
            record.put_current(password)
        return password


def redis_wish(declared: tuple[Keys, ...], kept: Kept, *, stack: str) -> RedisWish:
    """Every user there should be, with both passwords of one that is being changed."""
    passwords: dict[str, list[Secret]] = {}
    for one in declared:
        following = kept.redis(one.app).next()
        passwords[one.app] = [kept.redis_password(one.app), *([following] if following else [])]
    return RedisWish(stack=stack, apps=declared, passwords=passwords)


class DatabasePlaces:
    """`admin` is the URL of the database's superuser, `install` that of the stack's own role, which owns it."""

    def __init__(
        self,
        declared: tuple[Tenant, ...],
        *,
        admin: Secret,
        install: Secret,
        kept: Kept,
        publish: Publish,
        stack: str,
    ) -> None:
        self.tenancy = PostgresTenancy(admin)
        self.admin = admin
        self._install = install
        self.kept = kept
        self._declared = declared
        self._publish = publish
        self._stack = stack

    def use(self, *, admin: Secret, install: Secret) -> None:
        """These are the URLs from now on."""
        self._install = install
        if admin != self.admin:
            self.tenancy, self.admin = PostgresTenancy(admin), admin

    def wish(self) -> Wish:
        """What the database should hold, with the logins as they are kept now."""
        logins: Mapping[tuple[str, Slot], Secret] = {
            (tenant.app, found.slot): found.password
            for tenant in self._declared
            for found in [self.kept.credential(tenant.app)]
        }
        return Wish(stack=self._stack, install=self._stack, database=self._stack, tenants=self._declared, logins=logins)

    def has(self, app: str) -> bool:
        """Whether the app has a place."""
        return any(tenant.app == app for tenant in self._declared)

    def url(self, app: str) -> Secret:
        """What the app logs in with."""
        found = self.kept.credential(app)
        return self.tenancy.url(self.wish(), app, found.slot, found.password)

    def migration_url(self, app: str) -> Secret:
        """What its migrations log in with: themselves where it owns its schema, else the owner of what it uses."""
        tenant = self.wish().tenant(app)
        if tenant.owner:
            return self.url(app)
        return Secret(f"{self._install.reveal()}?search_path={quote(tenant.home, safe='')}")

    def lock(self, app: str) -> Lock:
        """How the server's side of its login is changed."""
        return app_login_lock(self.tenancy, self.wish(), app)

    async def settle(self) -> bool:
        """Finish what a change cut short left, and make the database as declared; whether a login is another now.

        Raises what `PostgresTenancy` and `verify_postgres` raise.
        """
        changed = False
        for tenant in self._declared:
            settled = await recover(self.kept.database(tenant.app), self.lock(tenant.app))
            changed = changed or settled is Settled.FINISH
        wish = self.wish()
        plan = await self.tenancy.ensure(wish)
        for note in plan.notes:
            self._publish(Notice(message=note))
        await verify_postgres(self.admin, wish)
        return changed


class RedisPlaces:
    """`admin` is the URL of the stack's own user."""

    def __init__(self, declared: tuple[Keys, ...], admin: Secret, kept: Kept, publish: Publish, *, stack: str) -> None:
        self.tenancy = RedisTenancy(admin)
        self.admin = admin
        self.kept = kept
        self._declared = declared
        self._publish = publish
        self._stack = stack
        self._forgotten = anyio.Event()

    def use(self, admin: Secret) -> None:
        """This is the URL from now on."""
        if admin != self.admin:
            self.tenancy, self.admin = RedisTenancy(admin), admin

    def wish(self) -> RedisWish:
        """Every user there should be."""
        return redis_wish(self._declared, self.kept, stack=self._stack)

    def has(self, app: str) -> bool:
        """Whether the app has a place."""
        return any(one.app == app for one in self._declared)

    def url(self, app: str) -> Secret:
        """What the app logs in with."""
        return self.tenancy.url(self.wish(), app, self.kept.redis_password(app))

    def lock(self, app: str) -> Lock:
        """How the server's side of its password is changed."""
        return redis_lock(self.tenancy, self.admin, self.wish().user(app))

    async def ensure(self) -> None:
        """Set the users; to be called each time Redis has become ready, as it forgets them."""
        await self.tenancy.ensure(self.wish())

    async def settle(self) -> bool:
        """As `DatabasePlaces.settle`."""
        await self.ensure()
        changed = False
        for one in self._declared:
            settled = await recover(self.kept.redis(one.app), self.lock(one.app))
            changed = changed or settled is Settled.FINISH
        await self.ensure()
        await verify_redis(self.admin, self.wish())
        return changed

    def observe(self, event: Event) -> None:
        """Subscriber: a Redis that was started again may have forgotten the users."""
        if isinstance(event, ServiceChanged) and event.service == "redis" and event.state is ServiceState.RUNNING:
            self._forgotten.set()

    async def keep(self) -> None:
        """Set them again whenever that happened. Until cancelled."""
        while True:
            await self._forgotten.wait()
            self._forgotten = anyio.Event()
            try:
                await self.ensure()
            except SupervisorError as error:
                self._publish(Warned(message=f"the apps' users of Redis are not set: {error}"))
