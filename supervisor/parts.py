"""Builds every part from the settings and connects it; owns nothing that runs. Wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from supervisor.app.app import App, AppSpec, OnUnhealthy
from supervisor.app.gate import HealthCheck
from supervisor.app.route import Route, RouteSpec
from supervisor.app_environment import AppEnvironment
from supervisor.catalog import Catalog
from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.events import Publish, Warned
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.migrations.command import CommandMigrations, SpawnedRun
from supervisor.migrations.folder import open_folder
from supervisor.migrations.model import Migrations
from supervisor.placement import Placement
from supervisor.process.output import OnLine, Ring
from supervisor.process.reaper import Reaper
from supervisor.process.restart import RestartMode, RestartPolicy
from supervisor.services.orchestrator import ServiceOrchestrator
from supervisor.services.runner import Watching
from supervisor.state import State
from supervisor.triggers.files import stamp

APP = "app"


class Rings:
    """The output ring of every source, made on first use."""

    def __init__(self, on_line: OnLine) -> None:
        self._on_line = on_line
        self._rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        """The ring of `name`."""
        if name not in self._rings:
            self._rings[name] = Ring(name, on_line=self._on_line)
        return self._rings[name]

    def sources(self) -> list[str]:
        """The names there are."""
        return sorted(self._rings)

    def get(self, name: str) -> Ring | None:
        """The ring of `name` where there is one."""
        return self._rings.get(name)


class Parts:
    """Everything the daemon runs. Raises ConfigurationError for what cannot be built."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        placement: Placement,
        state: State,
        reaper: Reaper,
        rings: Rings,
        publish: Publish,
        register_secret: Callable[[Secret], None],
        on_app_end: Callable[[SupervisorError | None], None],
        on_essential_failure: Callable[[SupervisorError], None],
    ) -> None:
        self.settings = settings
        self.state = state
        self.reaper = reaper
        self.rings = rings
        self._publish = publish
        self.placement = placement
        self.hold = (settings.on_app_failure or placement.traits.on_app_failure) == "hold"
        policy = self._policy(settings.app_restart)
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
        self.environment = AppEnvironment(
            settings,
            environ,
            placement=placement,
            database_url=self.catalog.database_url,
            redis_url=self.catalog.redis_url,
        )
        self.environment.check()
        if self.environment.warning:
            publish(Warned(message=self.environment.warning))
        self.orchestrator = ServiceOrchestrator(
            publish,
            watching=Watching(settings.watch_interval_seconds, settings.watch_timeout_seconds, settings.watch_retries),
            on_essential_failure=on_essential_failure,
        )
        self.catalog.fill(self.orchestrator, self.environment, self._policy("always"))
        if self.stack is not None:
            self.stack.restart_service = self._restart_service
        self.migrations = self._migrations()
        self.apps = {APP: self._app(policy, on_app_end)}
        self.routes = self._routes()
        self.trigger_path = settings.trigger_file or settings.app_dir / ".reload-trigger"
        # Taken before anything is started: a touch during the boot is a wish for a reload, one before it is not.
        self.trigger_seen = stamp(self.trigger_path)

    async def _restart_service(self, name: str) -> None:
        await self.orchestrator.runner(name).restart()

    def _policy(self, mode: str) -> RestartPolicy:
        settings = self.settings
        policy = RestartPolicy(
            mode=RestartMode(mode),
            base_seconds=settings.restart_base_seconds,
            cap_seconds=settings.restart_cap_seconds,
            limit=settings.restart_limit,
            window_seconds=settings.restart_window_seconds,
        )
        impossible = policy.unreachable_limit()
        if impossible:
            raise ConfigurationError(f"cannot use the restart settings: {impossible}")
        return policy

    def _app(self, policy: RestartPolicy, on_end: Callable[[SupervisorError | None], None]) -> App:
        settings = self.settings
        spec = AppSpec(
            name=APP,
            command=self.environment.app,
            check=HealthCheck(
                settings.app_health,
                settings.port,
                settings.app_health_path,
                limit_seconds=settings.app_health_timeout_seconds,
            ),
            start_seconds=settings.app_start_seconds,
            stop_seconds=settings.app_stop_seconds,
            interval_seconds=settings.app_health_interval_seconds,
            retries=settings.app_health_retries,
            restart=policy,
            on_unhealthy=OnUnhealthy(settings.on_unhealthy),
            hold=self.hold,
            excuse=self.orchestrator.trouble,
        )
        return App(spec, reaper=self.reaper, ring=self.rings.ring(APP), publish=self._publish, on_end=on_end)

    def _migrations(self) -> Migrations | None:
        settings, dsn = self.settings, self.catalog.database_url
        if settings.migrate_command is not None:
            return CommandMigrations(
                SpawnedRun(
                    self.reaper,
                    partial(self.environment.one_shot, "migrate", settings.migrate_command),
                    self.rings.ring("migrate"),
                ),
                dsn,
                lock_name=settings.stack,
                deadline_seconds=settings.migrate_seconds,
            )
        if settings.migrate_dir is None:
            return None
        if dsn is None:
            raise ConfigurationError(
                "cannot run the migrations in SUPERVISOR_MIGRATE_DIR: there is no database; "
                "set DATABASE_URL, or run with Postgres"
            )
        folder = settings.app_dir / settings.migrate_dir
        return open_folder(folder, dsn, lock_name=settings.stack, deadline_seconds=settings.migrate_seconds)

    def _routes(self) -> dict[str, Route]:
        web = self.catalog.web
        if web is None:
            return {}
        spec = RouteSpec(app=APP, address=web.host, port=web.port, host=self.settings.app_host)
        return {APP: Route(spec, self._publish)}

    def addresses(self) -> dict[str, str]:
        """Where things answer, for people; no secrets."""
        found = {"app": f"http://127.0.0.1:{self.settings.port}"}
        found.update(self.catalog.addresses())
        found["control_socket"] = str(self.state.paths.socket)
        found["state_dir"] = str(self.state.paths.state)
        return found
