"""Builds every part from the settings and connects it; owns nothing that runs. Wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from supervisor.app.front.model import Front
from supervisor.app.route import Route, RouteSpec
from supervisor.app_environment import AppEnvironment, read_env_file
from supervisor.app_home import AppHome
from supervisor.app_part import AppPart
from supervisor.app_plan import Surroundings, restart_policy
from supervisor.app_variables import AppVariables
from supervisor.catalog import Catalog
from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.events import Notice, Publish
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded
from supervisor.environment.resolve import complaint
from supervisor.fronts import Fronts
from supervisor.placement import Placement
from supervisor.process.framer import KeepWhole
from supervisor.process.meter import Rate
from supervisor.process.output import OnDropped, OnLine, Ring
from supervisor.process.reaper import Reaper
from supervisor.services.orchestrator import ServiceOrchestrator
from supervisor.services.runner import Watching
from supervisor.services.tenancy.rotation import Settled, recover
from supervisor.services.traefik_files import ANY_HOST, routed_host
from supervisor.state import State
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.given_files import GivenFiles

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.services.tenancy.tenant import Tenant
    from supervisor.tenants import DatabasePlaces, RedisPlaces

OnEnd = Callable[[str, SupervisorError | None], None]
"""Told an app's name when it ended for good and is not held; without an error it ended in order."""


class Rings:
    """The output ring of every source, made on first use."""

    def __init__(
        self,
        on_line: OnLine,
        *,
        rate: Rate | None = None,
        on_dropped: OnDropped | None = None,
        keep_whole: KeepWhole | None = None,
    ) -> None:
        self._on_line = on_line
        self._rate = rate
        self._on_dropped = on_dropped
        self._keep_whole = keep_whole
        self._rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        """The ring of `name`."""
        if name not in self._rings:
            self._rings[name] = Ring(
                name,
                on_line=self._on_line,
                rate=self._rate,
                on_dropped=self._on_dropped,
                keep_whole=self._keep_whole,
            )
        return self._rings[name]

    def sources(self) -> list[str]:
        """The names there are."""
        return sorted(self._rings)

    def get(self, name: str) -> Ring | None:
        """The ring of `name` where there is one."""
        return self._rings.get(name)

    def dropped(self) -> list[dict[str, Any]]:
        """What was dropped of each source that printed too fast; JSON-ready."""
        return [
            {"source": name, "lines": ring.lines_dropped, "bytes": ring.bytes_dropped}
            for name, ring in sorted(self._rings.items())
            if ring.bytes_dropped
        ]


class Parts:
    """Everything the daemon runs. Raises ConfigurationError for what cannot be built."""

    def __init__(
        self,
        loaded: Loaded,
        environ: Mapping[str, str],
        *,
        placement: Placement,
        state: State,
        fronts: Fronts,
        homes: Mapping[str, AppHome],
        reaper: Reaper,
        rings: Rings,
        publish: Publish,
        register_secret: Callable[[Secret], None],
        on_app_end: OnEnd,
        on_essential_failure: Callable[[SupervisorError], None],
    ) -> None:
        self.loaded = loaded
        self.settings = settings = loaded.settings
        self.state = state
        self.reaper = reaper
        self.rings = rings
        self._publish = publish
        self.placement = placement
        self.hold = (settings.on_app_failure or placement.traits.on_app_failure) == "hold"
        self.catalog = Catalog(
            settings,
            environ,
            placement,
            state=state,
            reaper=reaper,
            rings=rings,
            publish=publish,
            on_failure=on_essential_failure,
        )
        self.stack = self.catalog.stack
        for secret in self.catalog.secrets():
            register_secret(secret)
        self.orchestrator = ServiceOrchestrator(
            publish,
            watching=Watching(settings.watch_interval_seconds, settings.watch_timeout_seconds, settings.watch_retries),
            on_essential_failure=on_essential_failure,
        )
        # What the user's own services get is what belongs to no app.
        from_file = read_env_file(settings.env_file) if settings.env_file is not None else {}
        shared = AppEnvironment(
            settings,
            loaded.app_values(from_file, environ),
            placement=placement,
            database_url=self.catalog.database_url,
            redis_url=self.catalog.redis_url,
        )
        self.catalog.fill(self.orchestrator, shared, restart_policy(settings, "always"))
        if self.stack is not None:
            self.stack.restart_service = self._restart_service
        self.register_secret = register_secret
        self._make_places()
        for name in settings.app_names:
            AppSecrets(self.secrets_folder, name).drop_pending()
        self.files = GivenFiles(state.paths.runtime / "given")
        self.files.clear()
        variables = AppVariables(
            environ=environ,
            secrets_folder=self.secrets_folder,
            database_url=self._database_url,
            redis_url=self._redis_url,
            web=self.catalog.web,
            register=register_secret,
        )
        self.apps = {
            name: self._app_part(name, variables, homes[name], fronts.front(name), on_app_end)
            for name in settings.app_names
        }
        if text := complaint([part.plan.variables for part in self.apps.values()]):
            raise ConfigurationError(text)

    def _app_part(self, name: str, variables: AppVariables, home: AppHome, front: Front, on_end: OnEnd) -> AppPart:
        return AppPart(
            name,
            self.loaded.for_app(name),
            Surroundings(
                runtime_dir=self.state.paths.runtime,
                placement=self.placement,
                variables=variables,
                migration_url=self._migration_url,
                files=self.files,
                hold=self.hold,
                excuse=self.orchestrator.trouble,
                reaper=self.reaper,
                ring=self.rings.ring,
            ),
            home=home,
            front=front,
            route=self._route(name),
            requires=self._required_apps(name),
            dumps=self.catalog.dumps,
            publish=self._publish,
            on_end=on_end,
        )

    def _required_apps(self, name: str) -> tuple[str, ...]:
        """Services are ready before any app is started."""
        apps = self.settings.apps
        return tuple(other for other in apps[name].requires if other in apps) if apps else ()

    def _route(self, name: str) -> Route | None:
        web, host = self.catalog.web, routed_host(self.settings, name)
        if web is None or host is None:
            return None
        spec = RouteSpec(app=name, address=web.host, port=web.port, host=host if host != ANY_HOST else None)
        return Route(spec, self._publish)

    def _make_places(self) -> None:
        """Of several apps each has its own place in the stack's services; what is external they share as it is."""
        self.databases: DatabasePlaces | None = None
        self.redis: RedisPlaces | None = None
        settings, catalog = self.settings, self.catalog
        if not settings.apps:
            if (self.secrets_folder / "apps" / settings.app_names[0] / "login" / "database").exists():
                self.give_own_login()
            return
        from supervisor.tenants import Kept, RedisPlaces, keys, tenants

        self._make_databases(tenants(settings))
        kept = Kept(self.secrets_folder)
        if catalog.redis_url is not None and settings.redis_url is None:
            self.redis = RedisPlaces(keys(settings), catalog.redis_url, kept, self._publish, stack=settings.stack)
        for name, url in (("DATABASE_URL", settings.database_url), ("REDIS_URL", settings.redis_url)):
            if url is not None:
                self._publish(Notice(message=f"{name} is given to us: the apps share it as it is"))

    def _make_databases(self, declared: tuple[Tenant, ...]) -> None:
        from supervisor.tenants import DatabasePlaces, Kept

        if self.catalog.admin_url is not None and self.catalog.database_url is not None:
            self.databases = DatabasePlaces(
                declared,
                admin=self.catalog.admin_url,
                install=self.catalog.database_url,
                kept=Kept(self.secrets_folder),
                publish=self._publish,
                stack=self.settings.stack,
            )

    def give_own_login(self) -> None:
        """One app alone has the whole database, by a login of its own: the install's role has but one password."""
        from supervisor.services.tenancy.tenant import Tenant

        self._make_databases((Tenant(app=self.settings.app_names[0], whole=True),))

    @property
    def secrets_folder(self) -> Path:
        """Where all of the install's are kept."""
        return self.state.paths.state / "secrets"

    def _database_url(self, app: str) -> Secret | None:
        if app in self.settings.apps and self.settings.apps[app].database is None:
            return None
        if self.databases is None or self.settings.database_url is not None:
            return self.catalog.database_url
        return self.databases.url(app) if self.databases.has(app) else None

    def _migration_url(self, app: str) -> Secret | None:
        if self.databases is not None and self.databases.has(app):
            return self.databases.migration_url(app)
        return self._database_url(app)

    def _redis_url(self, app: str) -> Secret | None:
        if app in self.settings.apps and self.settings.apps[app].redis is None:
            return None
        if self.redis is None:
            return self.catalog.redis_url
        return self.redis.url(app) if self.redis.has(app) else None

    async def settle_passwords(self) -> None:
        """Finish what a change of one of the install's passwords left, before anything uses it. Raises our errors."""
        changed = False
        for rotating in self.catalog.rotating.values():
            if rotating.record.next() is not None:
                changed = await recover(rotating.record, rotating.lock()) is Settled.FINISH or changed
            if rotating.close is not None:
                await rotating.close()
        if changed:
            self.look_up()
            for part in self.apps.values():
                part.plan_anew()

    def look_up(self) -> None:
        """Use the install's passwords as they are kept now."""
        for url in self.catalog.look_up():
            self.register_secret(url)
        if self.databases is not None and self.catalog.admin_url is not None:
            assert self.catalog.database_url is not None
            self.databases.use(admin=self.catalog.admin_url, install=self.catalog.database_url)
        if self.redis is not None and self.catalog.redis_url is not None:
            self.redis.use(self.catalog.redis_url)

    @property
    def has_places(self) -> bool:
        """Whether apps have places of their own in the services."""
        return self.databases is not None or self.redis is not None

    async def settle_places(self) -> None:
        """Make them as declared, and prove it; the services are ready. Raises our errors."""
        changed = False
        if self.databases is not None:
            changed = await self.databases.settle()
        if self.redis is not None:
            changed = await self.redis.settle() or changed
        if changed:  # a change of a login that was cut short is finished now
            for part in self.apps.values():
                part.plan_anew()

    async def _restart_service(self, name: str) -> None:
        await self.orchestrator.runner(name).restart()

    @property
    def first(self) -> AppPart:
        """The app that what belongs to all runs beside."""
        return next(iter(self.apps.values()))

    def addresses(self) -> dict[str, str]:
        """Where things answer, for people; no secrets."""
        found = {name: f"http://127.0.0.1:{part.plan.settings.port}" for name, part in self.apps.items()}
        found.update(self.catalog.addresses())
        found["control_socket"] = str(self.state.paths.socket)
        found["state_dir"] = str(self.state.paths.state)
        return found
