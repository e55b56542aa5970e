"""One app of the stack: what runs it, and how it is planned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor.app.app import App
from supervisor.app.front.model import Front
from supervisor.app.route import Route
from supervisor.core.errors import SupervisorError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.core.settings import Loaded
from supervisor.planning.home import AppHome
from supervisor.planning.plan import AppPlan, Surroundings, reloaded

if TYPE_CHECKING:
    from supervisor.services.dump.dump import DatabaseDumps


class AppPart:
    """`plan` is what is in force. Raises ConfigurationError for what cannot be built."""

    def __init__(
        self,
        name: str,
        loaded: Loaded,
        around: Surroundings,
        *,
        home: AppHome,
        front: Front,
        route: Route | None,
        requires: tuple[str, ...],
        dumps: Callable[[], DatabaseDumps | None],
        publish: Publish,
        on_end: Callable[[str, SupervisorError | None], None],
    ) -> None:
        self.name = name
        self.route = route
        self.requires = requires
        """Other apps that serve before it is started."""
        self.dumps = dumps
        self._around = around
        self._publish = publish
        self.plan = AppPlan(name, loaded, around, home)
        if self.plan.environment.warning:
            publish(Warned(message=self.plan.environment.warning))
        self.app = App(
            self.plan.spec,
            front=front,
            reaper=around.reaper,
            ring=around.ring(name),
            publish=publish,
            on_end=lambda error: on_end(name, error),
        )
        self.trigger_path = loaded.settings.trigger_file or loaded.settings.app_dir / ".reload-trigger"

    def plan_anew(self) -> None:
        """Before it is started: the variables are looked up again."""
        self.plan = AppPlan(self.name, self.plan.loaded, self._around, self.plan.home)
        self.app.spec = self.plan.spec

    def plan_again(self, loaded: Loaded) -> AppPlan:
        """Its plan by newly read settings of its own; a wish that waits for the next start is told. See `AppPlan`."""
        wanted, told = reloaded(self.plan.settings, loaded.settings)
        if told:
            self._publish(Notice(message=told))
        # Ports and hosts wait for the next start, so the siblings are where they were.
        changed = {"settings": wanted, "general": self.plan.loaded.general}
        plan = AppPlan(self.name, loaded.model_copy(update=changed), self._around, self.plan.home)
        plan.check_variables()
        return plan

    def plan_in(self, home: AppHome) -> AppPlan:
        """Its plan in another release, by the settings in force. See `AppPlan`."""
        plan = AppPlan(self.name, self.plan.loaded, self._around, home)
        plan.check_variables()
        return plan
