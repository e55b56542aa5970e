"""A reload, step by step: a candidate beside the one that serves, gate, switch, bake, drain."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from supervisor.app.bake import READ_SECONDS, Bake, total
from supervisor.app.canary import CanaryRun
from supervisor.app.front.model import FrontError, Traffic, traffic_of
from supervisor.app.headroom import no_room_beside
from supervisor.app.keeper import Keeper
from supervisor.app.lineup import Lineup
from supervisor.app.run import Ended, Run
from supervisor.app.spec import AppSpec
from supervisor.app.verdict import why_worse
from supervisor.core.errors import RejectedError, RolledBackError, SupervisorError
from supervisor.core.requests import Canary

STARTS = 3
"""A reload asked for while the candidate is being proved starts it anew, at most as often as this."""
_ENOUGH = 100

Renew = Callable[[], Awaitable[AppSpec]]
"""The app as the disk says it now. Raises RejectedError where that cannot be."""
Commit = Callable[[], Awaitable[None]]
"""Called once the candidate is proved, before traffic moves; what it raises ends the reload."""


@dataclass
class Report:
    """What a reload did: seconds by phase, the generations, and how many requests waited at most."""

    phases: dict[str, float] = field(default_factory=dict)
    before: int | None = None
    after: int | None = None
    most_waiting: int = 0

    def as_detail(self) -> dict[str, object]:
        """For the outcome of the request."""
        return {"generation_before": self.before, "generation": self.after, "most_waiting": self.most_waiting}


def _output(run: Run) -> str:
    lines = run.evidence.output if run.evidence is not None else ()
    if not lines:
        return "\n  it wrote no output"
    return "\n  last lines of its output:\n" + "\n".join(f"    {line}" for line in lines)


class Reload:
    """One reload of one app. What fails before the switch leaves all as it was; after it, the warm one takes over."""

    def __init__(
        self,
        spec: AppSpec,
        lineup: Lineup,
        keeper: Keeper,
        report: Report,
        canary: Canary | None = None,
        renew: Renew | None = None,
        *,
        commit: Commit | None = None,
    ) -> None:
        self._commit = commit
        self.report = report
        self.spec = spec
        self._renew = renew
        self._canary = CanaryRun(canary, lineup) if canary is not None else None
        self._lineup = lineup
        self._keeper = keeper
        self._again = anyio.Event()
        self._starts = 0
        self.phase = ""
        """The step in hand."""
        self._began = Traffic()
        self._baked: Run | None = None

    def start_over(self) -> bool:
        """Begin the candidate anew with what is on disk now; False where it is too late, or was done too often."""
        if self.phase != "gate" or self._starts >= STARTS:
            return False
        self._again.set()
        return True

    async def run(self) -> None:
        """Raises RejectedError (nothing changed) or RolledBackError (the old one serves again)."""
        before = self._lineup.active
        self.report.before = before.number if before else None
        self._began = (await traffic_of(self._lineup.front, before.place) if before is not None else None) or Traffic()
        candidate = await self._prove()
        try:
            if self._canary is not None and before is not None and before.is_fit:
                async with self._phase("canary"):
                    await self._canary.run(candidate, before)
            async with self._phase("switch"):
                if self._commit is not None:
                    await self._commit()
                old = await self._promote(candidate)
        finally:
            if self._lineup.active is not candidate:
                with anyio.CancelScope(shield=True):
                    await self._withdraw(candidate)
        self.report.after = candidate.number
        self._keeper.promoted(self.spec)
        if old is not None:
            async with self._phase("bake"):
                await self._bake(candidate, old)

    async def _withdraw(self, candidate: Run) -> None:
        """It does not come to serve; what requests a canary has already it finishes."""
        if self._canary is not None and self._canary.shared:
            await self._lineup.end_share(candidate, "it does not serve")
        else:
            candidate.dismiss("it does not serve", 1.0)

    def reject(self, reason: str) -> bool:
        """Go back to the warm generation now; False where there is none."""
        if self._baked is None:
            return False
        self._baked.report(Ended(reason, hung=True))
        return True

    def decide(self, *, promote: bool) -> bool:
        """End the canary now; False where none is running."""
        return self._canary is not None and self._canary.decide(promote=promote)

    def end_canary(self, reason: str) -> None:
        """Another order waits: end the canary, or let it never begin."""
        if self._canary is not None:
            self._canary.abort(reason)

    @asynccontextmanager
    async def _phase(self, name: str) -> AsyncIterator[None]:
        started, self.phase = time.monotonic(), name
        try:
            yield
        finally:
            self.phase = ""
            self.report.phases[name] = round(time.monotonic() - started, 4)

    async def _prove(self) -> Run:
        """A candidate that passed the gate; begun anew when asked."""
        async with self._phase("gate"):
            while True:
                self._starts += 1
                self._again = anyio.Event()
                if self._starts > 1 and self._renew is not None:
                    self.spec = await self._renew()
                candidate = await self._try_once()
                if candidate is not None:
                    return candidate

    async def _try_once(self) -> Run | None:
        """None when it is to be begun anew. Raises RejectedError."""
        await self._check_room()
        try:
            run = await self._lineup.cohort.begin(self.spec, beside=True)
        except SupervisorError as error:
            raise RejectedError(f"the new generation cannot be started: {error}") from error
        kept = False
        try:
            await self._decided_or_again(run)
            if self._again.is_set():
                return None  # whoever asked for it was promised a start after that
            if run.refusal:
                raise RejectedError(f"generation {run.number} was refused: {run.refusal}{_output(run)}")
            kept = True
            return run
        finally:
            if not kept:
                # Nothing waits for it: KILL comes soon.
                run.dismiss("it does not serve", 1.0)
                with anyio.CancelScope(shield=True):
                    await run.gone.wait()

    async def _check_room(self) -> None:
        active = self._lineup.active
        why = await no_room_beside(active.child) if active is not None and active.child.alive else ""
        if why:
            raise RejectedError(why)

    async def _decided_or_again(self, run: Run) -> None:
        async with anyio.create_task_group() as group:

            async def decided() -> None:
                await run.decided.wait()
                group.cancel_scope.cancel()

            group.start_soon(decided)
            await self._again.wait()
            group.cancel_scope.cancel()

    async def _promote(self, candidate: Run) -> Run | None:
        try:
            old = await self._lineup.promote(candidate)
        except FrontError as error:
            raise RejectedError(f"requests could not be moved to the new generation: {error}") from error
        if old is not None:
            self._lineup.keep_warm(old, f"generation {candidate.number} serves")
        return old

    async def _bake(self, candidate: Run, old: Run) -> None:
        """Watch the new one while the old one is warm. The keeper moves traffic back; this only judges and tells."""
        self._baked = candidate
        try:
            with anyio.move_on_after(self.spec.limits.bake_seconds):
                async with anyio.create_task_group() as group:
                    group.start_soon(self._judge, candidate, old)
                    while self._lineup.active is candidate:
                        await self._lineup.changed.wait()
                    group.cancel_scope.cancel()
        finally:
            self._baked = None
            candidate.baking = False
            warm = self._lineup.forget_warm()
            if warm is not None:
                self._lineup.cohort.retire(warm, f"generation {candidate.number} serves")
        await self._lineup.at_rest()
        active = self._lineup.active
        self.report.after = active.number if active is not None else None
        if active is old:
            raise RolledBackError(
                f"generation {old.number} serves again, generation {candidate.number} failed: {self._keeper.fallen}"
            )
        if not self._lineup.is_serving:
            raise SupervisorError(
                f"generation {candidate.number} failed, and there was no way back to generation {old.number}: "
                f"{candidate.why_unfit}; what serves next is in `supervisor status`"
            )

    async def _judge(self, candidate: Run, old: Run) -> None:
        """Compare answers every 50 ms; where the front cannot be asked just now, the next reading tells."""
        bake = Bake(
            self._baseline(await traffic_of(self._lineup.front, old.place)), errors=self.spec.limits.bake_errors
        )
        while True:
            traffic = await traffic_of(self._lineup.front, candidate.place)
            if traffic is not None:
                why = await why_worse(bake, candidate.place, traffic)
                if why and not self.spec.excuse():
                    candidate.report(Ended(why, hung=True))
                    return
            await anyio.sleep(READ_SECONDS)

    def _baseline(self, traffic: Traffic | None) -> Traffic:
        """What the old one answered lately: since the reload began, or, where that is too little, since it serves.

        Days of good answers would hide a service that has just gone down, and the new one would be blamed for it.
        """
        traffic = traffic or Traffic()
        lately = traffic.since(self._began)
        return lately if total(lately) >= _ENOUGH else traffic
