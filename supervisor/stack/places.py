"""Where each app keeps its data in the stack's services, and the URLs that follow from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from supervisor.core.events import Notice, Publish
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.services.tenancy.rotation import Settled, recover
from supervisor.stack.catalog import Catalog
from supervisor.store.app_secrets import AppSecrets

if TYPE_CHECKING:
    from supervisor.services.tenancy.tenant import Tenant
    from supervisor.stack.tenants import DatabasePlaces, RedisPlaces


class Places:
    """Of several apps each has its own place in the stack's services; what is external they share as it is.

    One app alone has everything. `databases` and `redis` are None where nobody has a place of its own.
    """

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        secrets_folder: Path,
        publish: Publish,
        register_secret: Callable[[Secret], None],
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._secrets_folder = secrets_folder
        self._publish = publish
        self._register_secret = register_secret
        self.databases: DatabasePlaces | None = None
        self.redis: RedisPlaces | None = None
        if settings.apps:
            self._divide()
        elif AppSecrets(secrets_folder, settings.app_names[0]).has_login("database"):
            self.give_own_login()

    def _divide(self) -> None:
        # Imported here: beside one app alone neither asyncpg nor redis is loaded.
        from supervisor.stack.tenants import Kept, RedisPlaces, keys, tenants

        settings, catalog = self._settings, self._catalog
        self._make_databases(tenants(settings))
        kept = Kept(self._secrets_folder)
        if catalog.redis_url is not None and settings.redis_url is None:
            self.redis = RedisPlaces(keys(settings), catalog.redis_url, kept, self._publish, stack=settings.stack)
        for name, url in (("DATABASE_URL", settings.database_url), ("REDIS_URL", settings.redis_url)):
            if url is not None:
                self._publish(Notice(message=f"{name} is given to us: the apps share it as it is"))

    def _make_databases(self, declared: tuple[Tenant, ...]) -> None:
        from supervisor.stack.tenants import DatabasePlaces, Kept

        if self._catalog.admin_url is not None and self._catalog.database_url is not None:
            self.databases = DatabasePlaces(
                declared,
                admin=self._catalog.admin_url,
                install=self._catalog.database_url,
                kept=Kept(self._secrets_folder),
                publish=self._publish,
                stack=self._settings.stack,
            )

    def give_own_login(self) -> None:
        """One app alone has the whole database, by a login of its own: the install's role has but one password."""
        from supervisor.services.tenancy.tenant import Tenant

        self._make_databases((Tenant(app=self._settings.app_names[0], whole=True),))

    def take_own_login(self) -> None:
        """It is not to be: the app has the install's role again."""
        self.databases = None

    @property
    def exist(self) -> bool:
        """Whether apps have places of their own."""
        return self.databases is not None or self.redis is not None

    def database_url(self, app: str) -> Secret | None:
        """What the app logs in to Postgres with; None where it has none."""
        if app in self._settings.apps and self._settings.apps[app].database is None:
            return None
        if self.databases is None or self._settings.database_url is not None:
            return self._catalog.database_url
        return self.databases.url(app) if self.databases.has(app) else None

    def migration_url(self, app: str) -> Secret | None:
        """What its migrations do."""
        if self.databases is not None and self.databases.has(app):
            return self.databases.migration_url(app)
        return self.database_url(app)

    def redis_url(self, app: str) -> Secret | None:
        """What the app logs in to Redis with; None where it has none."""
        if app in self._settings.apps and self._settings.apps[app].redis is None:
            return None
        if self.redis is None:
            return self._catalog.redis_url
        return self.redis.url(app) if self.redis.has(app) else None

    def look_up(self) -> None:
        """Use the install's passwords as they are kept now."""
        catalog = self._catalog
        for url in catalog.look_up():
            self._register_secret(url)
        if self.databases is not None and catalog.admin_url is not None:
            assert catalog.database_url is not None
            self.databases.use(admin=catalog.admin_url, install=catalog.database_url)
        if self.redis is not None and catalog.redis_url is not None:
            self.redis.use(catalog.redis_url)

    async def settle_passwords(self) -> bool:
        """Finish what a change of one of the install's passwords left, before anything uses it; the services are ready.

        Whether one is another now. Raises our errors.
        """
        changed = False
        for rotating in self._catalog.rotating.values():
            if rotating.record.next() is not None:
                changed = await recover(rotating.record, rotating.lock()) is Settled.FINISH or changed
            if rotating.close is not None:
                await rotating.close()
        if changed:
            self.look_up()
        return changed

    async def settle(self) -> bool:
        """Make them as declared, and prove it; the services are ready. Whether a login is another now.

        Raises our errors.
        """
        changed = False
        if self.databases is not None:
            changed = await self.databases.settle()
        if self.redis is not None:
            changed = await self.redis.settle() or changed
        return changed
