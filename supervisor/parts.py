"""Builds every part from the settings and connects it; owns nothing that runs. Wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.app.app import App
from supervisor.app.front.model import Front
from supervisor.app.route import Route, RouteSpec
from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.events import Publish
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded
from supervisor.environment.resolve import complaint
from supervisor.fronts import Fronts
from supervisor.planning.environment import AppEnvironment, read_env_file
from supervisor.planning.home import AppHome
from supervisor.planning.part import AppPart
from supervisor.planning.plan import Surroundings, restart_policy
from supervisor.planning.variables import AppVariables
from supervisor.process.reaper import Reaper
from supervisor.rings import Rings
from supervisor.services.orchestrator import ServiceOrchestrator
from supervisor.services.runner import Watching
from supervisor.services.traefik_files import ANY_HOST, routed_host
from supervisor.stack.catalog import Catalog
from supervisor.stack.placement import Placement
from supervisor.stack.places import Places
from supervisor.state import State
from supervisor.store.app_secrets import AppSecrets
from supervisor.store.given_files import GivenFiles

OnEnd = Callable[[str, SupervisorError | None], None]
"""Told an app's name when it ended for good and is not held; without an error it ended in order."""


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
        self.catalog.fill(self.orchestrator, shared.ours, restart_policy(settings, "always"))
        if self.stack is not None:
            self.stack.restart_service = self._restart_service
        self.register_secret = register_secret
        self.secrets_folder = state.paths.state / "secrets"
        self.places = Places(settings, self.catalog, self.secrets_folder, publish, register_secret)
        for name in settings.app_names:
            AppSecrets(self.secrets_folder, name).drop_pending()
        self.files = GivenFiles(state.paths.runtime / "given")
        self.files.clear()
        variables = AppVariables(
            environ=environ,
            secrets_folder=self.secrets_folder,
            database_url=self.places.database_url,
            redis_url=self.places.redis_url,
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
                migration_url=self.places.migration_url,
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

    async def settle_passwords(self) -> None:
        """See `Places.settle_passwords`."""
        if await self.places.settle_passwords():
            self._plan_anew()

    async def settle_places(self) -> None:
        """See `Places.settle`."""
        if await self.places.settle():
            self._plan_anew()

    def _plan_anew(self) -> None:
        """A change that was cut short is finished now, and the apps are to have the new one."""
        for part in self.apps.values():
            part.plan_anew()

    async def _restart_service(self, name: str) -> None:
        await self.orchestrator.runner(name).restart()

    @property
    def running_apps(self) -> list[App]:
        """What runs each app."""
        return [part.app for part in self.apps.values()]

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
