"""One generation at its place, from its spawn until its tree is gone: proved, watched, ended in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import anyio

from supervisor.app import gate
from supervisor.app.evidence import Evidence, look
from supervisor.app.front.model import Place
from supervisor.app.gate import HealthCheck, Pace, Passed, Terms
from supervisor.app.generation import Generation
from supervisor.app.notify import Readiness
from supervisor.app.spec import AppSpec, OnUnhealthy
from supervisor.core.errors import SupervisorError
from supervisor.process.child import Child

BAKE_INTERVAL_SECONDS = 1.0

OnAnswer = Callable[["Run", bool, str], None]
"""Told of every answer to a liveness probe: (run, good, detail)."""


@dataclass(frozen=True)
class Ended:
    """Why a generation must not serve any longer. `clean`: it exited 0 by itself; `hung`: alive, but no good.

    `final` ends every restart: a change by the user is needed.
    """

    reason: str
    clean: bool = False
    hung: bool = False
    final: SupervisorError | None = None


class Run:
    """`live` is its task, and its end the end of the process and of all that it started.

    `decided` is set once it passed the gate, or will not (`refusal`); `troubled` with `trouble` once it must not serve.
    `gone` is set by the lineup, when `live` returned and the place is free again; `left` says what could not be ended.
    """

    def __init__(
        self,
        spec: AppSpec,
        place: Place,
        generation: Generation,
        readiness: Readiness,
        listening: anyio.CancelScope,
        *,
        since: int,
        on_answer: OnAnswer,
        baking: bool = False,
    ) -> None:
        self.spec = spec
        self.place = place
        self.generation = generation
        self.check: HealthCheck = replace(spec.check, host=place.host, port=place.port)
        self.path = ""
        self.refusal = ""
        self.left = ""
        self.decided = anyio.Event()
        self.trouble: Ended | None = None
        self.troubled = anyio.Event()
        self.gone = anyio.Event()
        self.baking = baking
        self.evidence: Evidence | None = None
        self._readiness = readiness
        self._listening = listening
        self._since = since
        self._on_answer = on_answer
        self._scope = anyio.CancelScope()
        self._grace_seconds = spec.stop_seconds
        self._reason = ""

    @property
    def child(self) -> Child:
        """Its process."""
        return self.generation.child

    @property
    def number(self) -> int:
        """Its generation."""
        return self.generation.number

    @property
    def is_fit(self) -> bool:
        """Whether it could take requests now."""
        return self.trouble is None and not self.refusal and self.child.alive

    @property
    def why_unfit(self) -> str:
        """Why it could not; empty where it could."""
        if self.is_fit:
            return ""
        return self.refusal or (self.trouble.reason if self.trouble else str(self.child.exit or "it is being ended"))

    async def live(self) -> None:
        """Prove it, watch it, and end it when dismissed or cancelled; its whole tree is gone when this returns."""
        try:
            with self._scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._watch_end, group.cancel_scope)
                    if await self._prove():
                        await self._watch_liveness()
                    await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await self._stop()
            self._listening.cancel()
            self._refuse(self._reason or "it was stopped")

    async def _stop(self) -> None:
        """What not even KILL ends is told, and holds nobody up."""
        try:
            await self.generation.stop(self._grace_seconds, self._reason)
        except SupervisorError as error:
            self.left = str(error)

    def dismiss(self, reason: str, grace_seconds: float | None = None) -> None:
        """End it: stop signal, grace, KILL. Does not wait; `gone` tells."""
        self._reason = self._reason or reason
        if grace_seconds is not None:
            self._grace_seconds = grace_seconds
        self._scope.cancel()

    def report(self, ended: Ended) -> None:
        """It must not serve any longer; the first report counts."""
        if self.trouble is None:
            self.trouble = ended
            self.troubled.set()

    async def _watch_end(self, rest: anyio.CancelScope) -> None:
        end = await self.child.wait()
        if not self.decided.is_set():
            await self._refuse_with_evidence(f"{end} before it was healthy", "")
        self.generation.fail(self.refusal or str(end))
        self.report(Ended(self.refusal or str(end), clean=end.clean))
        rest.cancel()

    def _refuse(self, reason: str) -> None:
        if not self.decided.is_set():
            self.refusal = reason
            self.decided.set()

    async def _refuse_with_evidence(self, reason: str, answer: str) -> None:
        """Look at it while it is there; what it lacks is told with the refusal."""
        self.evidence = await look(
            self.child, self.place, public_port=self.spec.public_port, answer=answer, since=self._since
        )
        self._refuse("; ".join([reason, *(self.evidence.hints or [self._advice()])]))

    def _advice(self) -> str:
        return (
            f"it must listen on the port in PORT ({self.place.port}); set SUPERVISOR_APP_HEALTH_PATH, or "
            f"SUPERVISOR_APP_HEALTH=tcp or none for an app without HTTP"
        )

    async def _prove(self) -> bool:
        """Through the gate, or refused."""
        terms = Terms(
            start_seconds=self.spec.start_seconds,
            min_uptime_seconds=self.spec.min_uptime_seconds if self.baking else 0.0,
            must_say_ready=self.spec.must_say_ready,
        )
        result = await gate.pass_gate(self.child, self.check, self._readiness, terms)
        if isinstance(result, Passed):
            self.path = result.path
            self.generation.ready(f"answered on {result.path}" if result.path else self.check.kind)
            self.decided.set()
            return True
        await self._refuse_with_evidence(result.reason, result.answer)
        self.generation.fail(self.refusal)
        self.report(Ended(self.refusal))
        return False

    async def _watch_liveness(self) -> None:
        """Report it as hung once it is; with `on_unhealthy = none` it is only told, and watched on."""
        while self.check.kind != "none":
            reason = await gate.watch_liveness(
                self.check,
                self.path,
                pace=self._pace,
                on_answer=lambda good, detail: self._on_answer(self, good, detail),
                excuse=self.spec.excuse,
            )
            if self.spec.on_unhealthy is not OnUnhealthy.NONE:
                self.report(Ended(f"hung: {reason}", hung=True))
                return

    def _pace(self) -> Pace:
        """In the bake one bad answer is enough: another generation is warm."""
        if self.baking:
            return Pace(min(BAKE_INTERVAL_SECONDS, self.spec.interval_seconds), 1)
        return Pace(self.spec.interval_seconds, self.spec.retries)
