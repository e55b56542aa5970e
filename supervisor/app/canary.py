"""A canary: a part of new requests for a candidate, watched, decided by time, by hand, or by what goes wrong."""

from __future__ import annotations

import anyio

from supervisor.app.bake import READ_SECONDS, Bake
from supervisor.app.front.model import FrontError, Traffic, traffic_of
from supervisor.app.lineup import Lineup
from supervisor.app.run import Run
from supervisor.app.verdict import why_worse
from supervisor.core.errors import RejectedError
from supervisor.core.requests import Canary


class CanaryRun:
    """One canary. `shared` tells that the candidate got requests, which it may finish."""

    def __init__(self, canary: Canary, lineup: Lineup) -> None:
        self.shared = False
        self._canary = canary
        self._lineup = lineup
        self._running = False
        self._decided = anyio.Event()
        self._aborted = ""

    def decide(self, *, promote: bool) -> bool:
        """End it now; False where it does not run."""
        if not self._running:
            return False
        if not promote:
            self.abort("the canary was aborted")
        self._decided.set()
        return True

    def abort(self, reason: str) -> None:
        """End it, or let it never begin."""
        self._aborted = self._aborted or reason
        self._decided.set()

    async def run(self, candidate: Run, serving: Run) -> None:
        """Returns when the candidate is to get all requests. Raises RejectedError where it failed, or was aborted.

        Where the one that serves fails meanwhile, the candidate is what there is.
        """
        self._raise_if_aborted()
        try:
            await self._lineup.share(candidate, self._canary.percent)
        except FrontError as error:
            raise RejectedError(f"requests could not be shared out: {error}") from error
        self.shared = self._running = True
        why = ""
        try:
            with anyio.move_on_after(self._canary.seconds):
                why = await self._watch(candidate, serving)
        finally:
            self._running = False
        self._raise_if_aborted()
        if why:
            raise RejectedError(f"the canary, generation {candidate.number}, failed: {why}")

    def _raise_if_aborted(self) -> None:
        if self._aborted:
            raise RejectedError(self._aborted)

    async def _watch(self, candidate: Run, serving: Run) -> str:
        """Why it failed; empty once it was decided by hand, or the other one failed."""
        bake, front = Bake(Traffic(), errors=candidate.spec.limits.bake_errors), self._lineup.front
        while not self._decided.is_set() and serving.is_fit:
            if candidate.trouble is not None:
                return candidate.trouble.reason
            new, old = await traffic_of(front, candidate.place), await traffic_of(front, serving.place)
            if new is not None and old is not None:
                why = await why_worse(bake, candidate.place, new, old)
                if why:
                    return why
            with anyio.move_on_after(READ_SECONDS):
                await self._decided.wait()
        return ""
