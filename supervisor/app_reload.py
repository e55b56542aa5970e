"""A reload of one app or of all: settings and environment read again, pending migrations, then each app. Wiring."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

from supervisor.app.spec import AppSpec
from supervisor.core.errors import RejectedError, SupervisorError
from supervisor.core.requests import Canary, Outcome, Result, result_of
from supervisor.core.settings import Loaded
from supervisor.migrations.model import Migrations
from supervisor.planning.part import AppPart
from supervisor.planning.plan import AppPlan

ROUTE_SECONDS = 2.0


class AppReload:
    """Carries out one reload at a time. `reread` gives the settings as the files say now.

    `migrate` applies an app's pending migrations, `prove_routes` asks through the proxy, at most so many seconds.
    """

    def __init__(
        self,
        apps: Mapping[str, AppPart],
        *,
        reread: Callable[[], Awaitable[Loaded]],
        migrate: Callable[[str, Migrations | None], Awaitable[None]],
        prove_routes: Callable[[float], Awaitable[None]],
    ) -> None:
        self._apps = apps
        self._reread = reread
        self._migrate = migrate
        self._prove_routes = prove_routes
        self._target = ""
        self._in_hand = ""
        self._phases: dict[str, float] = {}
        self._generations: dict[str, dict[str, object]] = {}

    def start_over(self, target: str) -> bool:
        """Have the reload in hand begin its new generation anew; False where it is too late, or reloads another."""
        return target == self._target and any(part.app.start_over() for part in self._apps.values())

    async def run(self, target: str = "", canary: Canary | None = None) -> Outcome:
        """Of the app `target`, or of all, each after those that it requires.

        What could not be done leaves the serving generations as they are, and the outcome says why.
        """
        self._phases, self._generations = {}, {}
        self._target = target
        started = time.monotonic()
        result, reason = Result.OK, ""
        try:
            await self._reload(canary)
        except SupervisorError as error:
            result, reason = result_of(error), str(error)
            if result is Result.REJECTED:
                reason = f"the reload is rejected, the running app untouched: {reason}"
        return Outcome(
            result=result,
            reason=reason + self._where() if reason else "",
            elapsed_seconds=round(time.monotonic() - started, 3),
            phases=self._phases,
            detail={"apps": self._generations},
        )

    def _where(self) -> str:
        """Of several apps, which one it was, and which are reloaded already: they stay so."""
        if len(self._apps) == 1 or not self._in_hand:
            return ""
        names = list(self._apps)
        before = names[: names.index(self._in_hand)] if not self._target else []
        return f" (app {self._in_hand!r}{'; reloaded before it: ' if before else ''}{', '.join(before)})"

    async def _reload(self, canary: Canary | None) -> None:
        for part in self._apps.values():
            if self._target in ("", part.name):
                self._in_hand = part.name
                await self._reload_app(part, canary)
        self._in_hand = ""
        with self._phase("route"):
            await self._prove_routes(ROUTE_SECONDS)

    async def _prepare(self, part: AppPart) -> AppPlan:
        """Settings and environment as the files say now, and what is pending applied."""
        with self._phase("settings"):
            plan = await self._plan(part)
        with self._phase("migrations"):
            await self._apply(part.name, plan)
        return plan

    async def _plan(self, part: AppPart) -> AppPlan:
        try:
            loaded = await self._reread()
            if part.name not in loaded.settings.app_names:
                raise RejectedError(f"there is no app {part.name!r} in the settings any more; restart to be rid of it")
            return part.plan_again(loaded.for_app(part.name))
        except SupervisorError as error:
            raise RejectedError(str(error)) from error

    async def _apply(self, app: str, plan: AppPlan) -> None:
        try:
            await self._migrate(app, plan.migrations)
        except SupervisorError as error:
            raise RejectedError(str(error)) from error

    async def _reload_app(self, part: AppPart, canary: Canary | None) -> None:
        app, plans = part.app, [await self._prepare(part)]

        async def renew() -> AppSpec:
            plans.append(await self._prepare(part))
            return plans[-1].spec

        try:
            await app.reload(plans[0].spec, canary, renew=renew)
            part.plan = plans[-1]
        finally:
            # Also where it failed: one after the other, the new plan is what runs.
            part.plan = next((plan for plan in plans if app.spec is plan.spec), part.plan)
            report = app.last_reload
            for phase, seconds in report.phases.items():
                self._phases[phase] = round(self._phases.get(phase, 0.0) + seconds, 3)
            self._generations[part.name] = report.as_detail()

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._phases[name] = round(self._phases.get(name, 0.0) + time.monotonic() - started, 3)
