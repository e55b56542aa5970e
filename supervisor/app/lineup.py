"""Who serves and who is kept warm: every move of traffic is made here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from supervisor.app.cohort import Cohort
from supervisor.app.front.model import Front, FrontError, Holding, Place
from supervisor.app.run import Ended, Run
from supervisor.core.events import AppHealthChanged, Health, Notice, Publish, Warned
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

_PAUSES_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5)


class Lineup:
    """Which generation of `cohort` serves. Moves of traffic come one after the other, so that a crash and a reload
    never contradict each other.
    """

    def __init__(self, name: str, front: Front, *, reaper: Reaper, ring: Ring, publish: Publish) -> None:
        self.name = name
        self.front = front
        self.cohort = Cohort(
            name, front, reaper=reaper, ring=ring, publish=publish, free=self._free, on_answer=self._answered
        )
        self.served = anyio.Event()
        """Set when a generation serves for the first time."""
        self.changed = anyio.Event()
        """Set, and made anew, at each promotion."""
        self.active: Run | None = None
        self.warm: Run | None = None
        self._dead: list[Place] = []
        self._target: Place | None = None
        self._moving = anyio.Lock()
        self._publish = publish
        self._health = Health.NONE
        self._bad_answers = 0

    @property
    def is_serving(self) -> bool:
        """Whether requests reach a generation that is fit."""
        return self.active is not None and self.active.is_fit and self.active.generation.is_serving

    async def _free(self, place: Place) -> None:
        """A dead one's place is kept while requests are directed there: that is what makes them wait."""
        if place == self._target:
            self._dead.append(place)
        else:
            await self.front.give_back(place)

    async def promote(self, run: Run) -> Run | None:
        """New requests go to `run`; gives the one that served before where it is fit.

        Raises FrontError, with nothing changed, where the front does not switch or `run` ended meanwhile. One that ends
        during the switch is promoted all the same: its trouble is told, and whoever watches falls back.
        """
        async with self._moving:
            if not run.is_fit:
                raise FrontError(f"cannot switch to generation {run.number}: {run.why_unfit}")
            await self.front.switch(run.place)
            before = self.active
            self._tell_path(run, before)
            self._set_active(run)
            # Before anything is awaited: a cancellation must not leave it running.
            if before is not None and not before.is_fit:
                self.cohort.retire(before, "replaced")
                before = None
            await self._give_back_dead()
        return before

    def _set_active(self, run: Run) -> None:
        self.active, self._target = run, run.place
        run.generation.serve()
        self._bad_answers = 0
        self._set_health(Health.HEALTHY)
        self.served.set()
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def _tell_path(self, run: Run, before: Run | None) -> None:
        asked = run.check.path
        if run.path and run.path not in (asked, before.path if before is not None else ""):
            text = f"the health path {asked} answers 404, so {run.path} is asked instead"
            self._publish(Notice(message=text, detail="set SUPERVISOR_APP_HEALTH_PATH to a path of the app's own"))

    async def _give_back_dead(self) -> None:
        for place in [place for place in self._dead if place != self._target]:
            await self.front.give_back(place)
            self._dead.remove(place)

    async def share(self, run: Run, percent: float) -> None:
        """Give `run` a part of new requests beside the one that serves. Raises FrontError unchanged."""
        async with self._moving:
            await self.front.share(run.place, percent)
        self._publish(Notice(message=f"canary: generation {run.number} gets {percent:g} % of new requests"))

    async def end_share(self, run: Run, reason: str) -> None:
        """All requests go to the one that serves again; what the other one has it finishes, then it is ended."""
        async with self._moving:
            try:
                # One that is gone has no share any more.
                wanted = partial(self.front.share, run.place, 0)
                await _insist(wanted, while_true=lambda: self.is_serving and run in self.cohort.living)
            except FrontError as error:
                self._publish(Warned(message=f"cannot take requests of {self.name!r} back: {error}"))
        self.cohort.retire(run, reason)

    def keep_warm(self, run: Run, reason: str) -> None:
        """Keep the one that served before, for `fall_back`."""
        self.warm = run
        run.baking = False
        run.generation.warm(reason)

    async def fall_back(self, reason: str) -> bool:
        """Back to the warm one at once; False where there is none that is fit. What failed is drained and ended."""
        async with self._moving:
            # Taken before anything is awaited: the bake may end meanwhile, and would retire it.
            old, self.warm, failed = self.warm, None, self.active
            if old is None:
                return False
            if not await self._switch_back(old):
                self.cohort.retire(old, "there is no way back to it")
                return False
            self._set_active(old)
            await self._give_back_dead()
        if failed is not None:
            failed.generation.fail(reason)
            self.cohort.retire(failed, reason)
        return True

    async def _switch_back(self, old: Run) -> bool:
        """Tried for a while: a proxy that is just being restarted must not cost the way back."""
        try:
            return await _insist(partial(self.front.switch, old.place), while_true=lambda: old.is_fit)
        except FrontError as error:
            self._publish(Warned(message=f"cannot switch {self.name!r} back: {error}"))
            return False

    async def at_rest(self) -> None:
        """Return once the moves asked for by now are made."""
        async with self._moving:
            pass

    def forget_warm(self) -> Run | None:
        """The end of the bake: the warm one, if it still is."""
        run, self.warm = self.warm, None
        return run

    async def wait(self, *, unless_served: bool = False) -> None:
        """Nobody serves for now; requests wait. A front that cannot be told is only reported.

        `unless_served` leaves all as it is where one serves by the time that it is this move's turn.
        """
        async with self._moving:
            if unless_served and self.is_serving:
                return
            try:
                await self.front.wait()
            except FrontError as error:
                self._publish(Warned(message=f"cannot let the clients of {self.name!r} wait: {error}"))
            self._target = None
            await self._give_back_dead()

    async def answer(self, holding: Holding, *, unless_served: bool = False) -> None:
        """Nobody serves; requests are told so. A front that cannot be told is only reported. See `wait`."""
        async with self._moving:
            if unless_served and self.is_serving:
                return
            try:
                await self.front.answer(holding)
            except FrontError as error:
                self._publish(Warned(message=f"cannot tell the clients of {self.name!r}: {error}"))
            self._target = None
            await self._give_back_dead()

    async def finish(self, holding: Holding, within_seconds: float) -> None:
        """Let no more requests in, and wait until those in flight are answered, at most `within_seconds`."""
        await self.answer(holding)
        await self.cohort.empty(within_seconds)

    async def end_all(self, reason: str, grace_seconds: float | None, *, but_candidates: bool = False) -> None:
        """End every generation; returns when all are gone. `but_candidates` spares what is being proved."""
        living = self.cohort.living
        ending = {run for run in living if not (but_candidates and run.baking and run is not self.active)}
        self.active = self.warm = None
        await self.cohort.end(ending, reason, grace_seconds)

    def trouble(self, ended: Ended) -> None:
        """Tell that the one that serves must not any longer."""
        self._set_health(Health.UNHEALTHY, ended.reason)

    def _answered(self, run: Run, good: bool, detail: str) -> None:
        if run is not self.active:
            return
        self._bad_answers = 0 if good else self._bad_answers + 1
        if good:
            self._set_health(Health.HEALTHY)
        elif self._bad_answers >= run.spec.retries:
            self._set_health(Health.UNHEALTHY, detail)

    def _set_health(self, health: Health, error: str = "") -> None:
        if health is not self._health:
            self._health = health
            self._publish(AppHealthChanged(app=self.name, health=health, error=error))


async def _insist(move: Callable[[], Awaitable[None]], *, while_true: Callable[[], bool]) -> bool:
    """Move, tried again for some 3 s; then its FrontError is raised. False where there is no reason to, any more."""
    for pause in (*_PAUSES_SECONDS, None):
        if not while_true():
            break
        try:
            await move()
        except FrontError:
            if pause is None:
                raise
            await anyio.sleep(pause)
        else:
            return True
    return False
