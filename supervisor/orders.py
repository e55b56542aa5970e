"""What a request of the controller does: a reload, or a verb on one app or service. Wiring."""

from __future__ import annotations

from supervisor.app.app import App
from supervisor.app_reload import AppReload
from supervisor.controller import NOTHING_TO_DECIDE
from supervisor.core.requests import Outcome, Request, Result, Verb
from supervisor.parts import Parts
from supervisor.services.runner import ServiceRunner


class Orders:
    """Carries out one request at a time, from `begin` on; what asks about what runs is answered before, too."""

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._reload: AppReload | None = None

    def begin(self, parts: Parts, reload: AppReload) -> None:
        """There is something to carry out requests on; the controller runs after the boot only."""
        self._parts, self._reload = parts, reload

    async def carry_out(self, request: Request) -> Outcome:
        """One turn of the controller. Raises our errors."""
        assert self._parts is not None
        assert self._reload is not None
        if request.verb is Verb.RELOAD:
            return await self._reload.run(request.target, request.canary)
        part = self._parts.apps.get(request.target)
        if part is not None:
            return await _app_verb(part.app, request.verb)
        return await _service_verb(self._parts.orchestrator.runner(request.target), request.verb)

    def start_over(self, request: Request) -> bool:
        """Whether the reload in hand does what is asked, as it begins anew."""
        return request.verb is Verb.RELOAD and self._reload is not None and self._reload.start_over(request.target)

    def end_canary(self) -> None:
        """Another order came: it must not wait for a canary, which may run for hours."""
        for app in self._apps():
            app.end_canary("the canary was aborted: another request came")

    def decide(self, request: Request) -> Outcome:
        """Promote or abort the canary that runs."""
        promote = request.verb is Verb.PROMOTE
        decided = [app.decide(promote=promote) for app in self._apps() if request.target in ("", app.spec.name)]
        return Outcome(result=Result.OK) if any(decided) else NOTHING_TO_DECIDE

    def _apps(self) -> list[App]:
        return self._parts.running_apps if self._parts is not None else []


async def _app_verb(app: App, verb: Verb) -> Outcome:
    match verb:
        case Verb.STOP:
            await app.stop(reason="stopped by hand")
        case Verb.RESTART:
            await app.restart()
        case _ if app.is_serving:
            return Outcome(result=Result.OK, reason="it runs already")
        case _:
            await app.start()
    return Outcome(result=Result.OK)


async def _service_verb(runner: ServiceRunner, verb: Verb) -> Outcome:
    match verb:
        case Verb.STOP:
            await runner.stop()
        case Verb.RESTART:
            await runner.restart()
        case _:
            runner.start()
            await runner.wait_ready()
    return Outcome(result=Result.OK)
