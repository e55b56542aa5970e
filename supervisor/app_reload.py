"""A reload of all apps: settings and environment read again, pending migrations, then each app. Wiring."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from supervisor.app.app import App
from supervisor.app.reload import Renew
from supervisor.app.spec import AppSpec
from supervisor.app_plan import AppPlan
from supervisor.core.errors import RejectedError, RolledBackError, SupervisorError
from supervisor.core.requests import Canary, Outcome, Result
from supervisor.core.settings import Loaded
from supervisor.migrations.model import Migrations
from supervisor.parts import Parts

ROUTE_SECONDS = 2.0


class AppReload:
    """Carries out one reload at a time. `reread` gives the settings as the files say now.

    `migrate` applies pending migrations, `prove_routes` asks through the proxy, at most so many seconds.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        reread: Callable[[], Loaded],
        migrate: Callable[[Migrations | None], Awaitable[None]],
        prove_routes: Callable[[float], Awaitable[None]],
    ) -> None:
        self._parts = parts
        self._reread = reread
        self._migrate = migrate
        self._prove_routes = prove_routes
        self._phases: dict[str, float] = {}
        self._generations: dict[str, dict[str, object]] = {}

    def start_over(self) -> bool:
        """Have the reload in hand begin its new generation anew; False where it is too late for that."""
        return any(app.start_over() for app in self._parts.apps.values())

    async def run(self, canary: Canary | None = None) -> Outcome:
        """What could not be done leaves the serving generations as they are, and the outcome says why."""
        self._phases, self._generations = {}, {}
        started = time.monotonic()
        result, reason = Result.OK, ""
        try:
            await self._reload(canary)
        except RejectedError as error:
            result, reason = Result.REJECTED, f"the reload is rejected, the running app untouched: {error}"
        except RolledBackError as error:
            result, reason = Result.ROLLED_BACK, str(error)
        except SupervisorError as error:
            result, reason = Result.FAILED, str(error)
        return Outcome(
            result=result,
            reason=reason,
            elapsed_seconds=round(time.monotonic() - started, 3),
            phases=self._phases,
            detail={"apps": self._generations},
        )

    async def _reload(self, canary: Canary | None) -> None:
        plans = [await self._prepare()]

        async def renew() -> AppSpec:
            plans.append(await self._prepare())
            return plans[-1].spec

        for name, app in self._parts.apps.items():
            await self._reload_app(name, app, plans[-1], canary, renew)
        self._parts.plan = plans[-1]
        with self._phase("route"):
            await self._prove_routes(ROUTE_SECONDS)

    async def _prepare(self) -> AppPlan:
        """Settings and environment as the files say now, and what is pending applied."""
        with self._phase("settings"):
            plan = self._plan()
        with self._phase("migrations"):
            await self._apply(plan)
        return plan

    def _plan(self) -> AppPlan:
        try:
            return self._parts.plan_again(self._reread().settings)
        except SupervisorError as error:
            raise RejectedError(str(error)) from error

    async def _apply(self, plan: AppPlan) -> None:
        try:
            await self._migrate(plan.migrations)
        except SupervisorError as error:
            raise RejectedError(str(error)) from error

    async def _reload_app(self, name: str, app: App, plan: AppPlan, canary: Canary | None, renew: Renew) -> None:
        try:
            await app.reload(plan.spec, canary, renew=renew)
        finally:
            if app.spec is plan.spec:
                self._parts.plan = plan  # also where it failed: one after the other, the new plan is what runs
            report = app.last_reload
            for phase, seconds in report.phases.items():
                self._phases[phase] = round(self._phases.get(phase, 0.0) + seconds, 3)
            self._generations[name] = report.as_detail()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = round(time.monotonic() - started, 3)
