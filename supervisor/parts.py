"""Builds every part from the settings and connects it; owns nothing that runs. Wiring."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.app.app import App
from supervisor.app.route import Route, RouteSpec
from supervisor.app_home import AppHome
from supervisor.app_plan import AppPlan, Surroundings, reloaded, restart_policy
from supervisor.catalog import Catalog
from supervisor.core.errors import SupervisorError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.fronts import Fronts
from supervisor.placement import Placement
from supervisor.process.output import OnLine, Ring
from supervisor.process.reaper import Reaper
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
        fronts: Fronts,
        home: AppHome,
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
        self.around = Surroundings(
            runtime_dir=state.paths.runtime,
            environ=environ,
            placement=placement,
            database_url=self.catalog.database_url,
            redis_url=self.catalog.redis_url,
            hold=self.hold,
            excuse=self.orchestrator.trouble,
            reaper=reaper,
            ring=rings.ring,
        )
        self.plan = AppPlan(APP, settings, self.around, home)
        if self.plan.environment.warning:
            publish(Warned(message=self.plan.environment.warning))
        self.catalog.fill(self.orchestrator, self.plan.environment, restart_policy(settings, "always"))
        if self.stack is not None:
            self.stack.restart_service = self._restart_service
        self.apps = {
            APP: App(
                self.plan.spec,
                front=fronts.front(APP),
                reaper=reaper,
                ring=rings.ring(APP),
                publish=publish,
                on_end=on_app_end,
            )
        }
        self.routes = self._routes()
        self.trigger_path = settings.trigger_file or settings.app_dir / ".reload-trigger"
        # Taken before anything is started: a touch during the boot is a wish for a reload, one before it is not.
        self.trigger_seen = stamp(self.trigger_path)

    async def _restart_service(self, name: str) -> None:
        await self.orchestrator.runner(name).restart()

    def plan_again(self, settings: Settings) -> AppPlan:
        """The app's plan by newly read settings; a wish that waits for the next start is told. See `AppPlan`."""
        wanted, told = reloaded(self.plan.settings, settings)
        if told:
            self._publish(Notice(message=told))
        return AppPlan(APP, wanted, self.around, self.plan.home)

    def plan_in(self, home: AppHome) -> AppPlan:
        """The app's plan in another release, by the settings in force. See `AppPlan`."""
        return AppPlan(APP, self.plan.settings, self.around, home)

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
