"""The front of kind `proxy`: one app's places as lines of the HAProxy that all apps share."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from supervisor.app.front.haproxy.lines import HOLD, LOOPBACK, NAMES, Lines, commands
from supervisor.app.front.haproxy.process import HAProxy
from supervisor.app.front.haproxy.runtime import BACKEND, Counts, Stat, Statistics, difference, parse
from supervisor.app.front.model import FrontError, FrontKind, Holding, Place, Traffic, Wire
from supervisor.app.front.ports import PortPool

_CONFIRM_SECONDS = 1.0
_UNDO_SECONDS = 1.0
_LOOK_AGAIN_SECONDS = 0.01
_TRIES = 3
_NONE = Counts()


@dataclass
class Tally:
    """Counts of one line from `base` on, over restarts of HAProxy, each of which begins to count at 0.

    What was counted between the last look and a restart is lost.
    """

    start: int
    base: Counts
    carried: Counts = _NONE
    seen: Counts = _NONE

    def look(self, start: int, now: Counts) -> Counts:
        """What was counted so far, from what the process number `start` says now."""
        if start != self.start:
            self.start, self.base, self.carried = start, _NONE, self.seen
        self.seen = self.carried + (now - self.base)
        return self.seen


class ProxyFront:
    """See `Front`. `tell` hands a holding answer to whoever serves the app's `hold_socket`; it must not block.

    One change at a time; a change that is not confirmed, or is cancelled, is undone.
    """

    kind = FrontKind.PROXY

    def __init__(
        self, haproxy: HAProxy, app: str, *, ports: PortPool, tell: Callable[[Holding], None], overlap: bool = True
    ) -> None:
        self.overlap = overlap
        self._haproxy = haproxy
        self._app = haproxy.apps[app]
        self._ports = ports
        self._tell = tell
        self._free = deque(NAMES)
        self._places: dict[str, Place] = {}
        self._tallies: dict[str, tuple[Place, Tally]] = {}
        self._serving: Place | None = None
        self._lock = anyio.Lock()

    @property
    def room(self) -> int:
        """Lines that no generation has."""
        return len(self._free)

    async def take_place(self) -> Place:
        """Its line has the address from now on, so that a switch is nothing but a turn of states."""
        async with self._lock:
            if not self._free:
                raise FrontError(
                    f"cannot give another generation of {self._app.name!r} a place: all {len(NAMES)} are taken; "
                    f"wait for the oldest to drain, or end it"
                )
            place = Place(self._free[0], LOOPBACK, self._ports.take())  # the line that was given back first
            await self._apply(self._lines.at(place.line, place.port))
            self._free.popleft()
            self._places[place.line] = place
            self._tallies.pop(place.line, None)
            return place

    async def give_back(self, place: Place) -> None:
        """Where it still served, requests wait from now on."""
        async with self._lock:
            if self._places.get(place.line) != place:
                return
            del self._places[place.line]
            self._free.append(place.line)
            if self._serving == place:
                self._serving = None
            if self._lines.is_ready(place.line):
                # Not done: the line is refused for as long as nobody listens there, which is as good as waiting.
                with contextlib.suppress(FrontError):
                    await self._apply(self._lines.without(place.line))

    async def switch(self, place: Place) -> None:
        """Read back before it returns; what waits goes there at its next try, within 100 ms."""
        async with self._lock:
            self._require(place)
            await self._begin_to_count(place)
            await self._apply(self._lines.alone(place.line))
            self._serving = place

    async def share(self, place: Place, percent: float) -> None:
        """In weights, as near as HAProxy can: 0.39 % at least."""
        async with self._lock:
            self._require(place)
            serving = self._serving
            if serving is None or serving == place:
                raise FrontError(
                    f"cannot give a part of the requests to {place.line}: nobody else serves; switch to it instead"
                )
            if not 0 <= percent < 100:
                raise FrontError(f"cannot give {percent:g} % of the requests away: it must be above 0 and below 100")
            if percent:
                await self._begin_to_count(place)
                await self._apply(self._lines.shared(serving.line, place.line, percent))
            else:
                await self._apply(self._lines.alone(serving.line))

    async def wait(self) -> None:
        """They are tried ten times a second against a port that refuses, until somebody is in rotation."""
        async with self._lock:
            await self._apply(self._lines.none(waiting=True))
            self._serving = None

    async def answer(self, holding: Holding) -> None:
        """The holding answer is told first, so that no request gets an older one."""
        self._tell(holding)
        async with self._lock:
            await self._apply(self._lines.none(waiting=False))
            self._serving = None

    async def traffic(self, place: Place) -> Traffic | None:
        """From the first switch or share on; before it nothing. After `give_back`, until the line is another's: what
        ended late is counted late.
        """
        start, found = await self._look()
        counted, tally = self._tallies.get(place.line, (None, None))
        if tally is None or counted != place:
            return Traffic()
        rows = self._rows(found, place.line)
        counts = tally.look(start, _total(rows))
        busy = sum(row.busy for row in rows)
        lost = counts.lost(busy)
        plain = self._app.wire is Wire.TCP
        return Traffic(
            in_flight=rows[0].busy,
            streams=busy - rows[0].busy,
            # Without HTTP a connection counts as answered once it was made; a try that was refused is a session, too.
            answered=counts.sessions - counts.refused if plain else counts.answered,
            failed=counts.failed,
            unreached=counts.refused + (counts.broken if plain else lost),
            lost=counts.broken if plain else lost,
        )

    async def waiting(self) -> int:
        """Exact but for those in the middle of a try: what a backend has, less what its servers have.

        Between two tries a request is on no server. Connections that HAProxy has not accepted yet are not counted.
        """
        _, found = await self._look()
        serving = (*NAMES, HOLD) if self._app.hold_socket and self._app.wire is not Wire.TCP else NAMES
        rows = ((found.of(name, BACKEND), [found.of(name, each) for each in serving]) for name in self._app.backends)
        return sum(max(0, backend.busy - sum(row.busy for row in servers)) for backend, servers in rows)

    @property
    def _lines(self) -> Lines:
        return self._haproxy.lines[self._app.name]

    def _require(self, place: Place) -> None:
        if self._places.get(place.line) != place:
            raise FrontError(f"cannot switch to {place.line} at port {place.port}: that place was given back")

    async def _begin_to_count(self, place: Place) -> None:
        """The line may have served another generation; its late counts are not this one's."""
        if place.line not in self._tallies:
            start, found = await self._look()
            self._tallies[place.line] = (place, Tally(start, _total(self._rows(found, place.line))))

    def _rows(self, found: Statistics, line: str) -> list[Stat]:
        return [found.of(name, line) for name in self._app.backends]

    async def _look(self) -> tuple[int, Statistics]:
        """Statistics, and the number of the HAProxy they are of."""
        for _ in range(_TRIES):
            start = self._haproxy.starts
            found = await self._haproxy.runtime.statistics(self._app.backends)
            if start == self._haproxy.starts:
                return start, found
        raise FrontError("cannot read HAProxy's statistics: it ended again and again; see its last lines")

    async def _apply(self, wanted: Lines) -> None:
        """Make the lines so, confirmed; else make them as they were, and raise FrontError."""
        before = self._lines
        try:
            await self._make(wanted)
        except BaseException:
            self._haproxy.lines[self._app.name] = before
            # Sent at once; a HAProxy that hangs reads it when it goes on, and must not hold up who cancelled.
            with anyio.move_on_after(_UNDO_SECONDS, shield=True), contextlib.suppress(FrontError):
                await self._command(before)
            raise

    async def _make(self, wanted: Lines) -> None:
        for _ in range(_TRIES):
            start = self._haproxy.starts
            await self._confirm(wanted, await self._command(wanted))
            self._haproxy.lines[self._app.name] = wanted
            # One that was started meanwhile may have come up with the lines of before.
            if start == self._haproxy.starts:
                return
        raise FrontError("cannot change HAProxy's lines: it ended again and again; see its last lines")

    async def _command(self, lines: Lines) -> Statistics:
        """Command and read back in one go."""
        names = self._app.backends
        asked = [*commands(names, lines), *(f"show stat {name} -1 -1" for name in names)]
        return Statistics(parse(await self._haproxy.runtime.ask(*asked)))

    async def _confirm(self, wanted: Lines, found: Statistics) -> None:
        """Newer versions change addresses a moment after they were told to, so it is looked at again for a second."""
        names = self._app.backends
        deadline = anyio.current_time() + _CONFIRM_SECONDS
        while wrong := difference(names, wanted, found):
            if anyio.current_time() >= deadline:
                raise FrontError(
                    f"cannot change HAProxy's lines: told to, but {wrong}; is another program using its API?"
                )
            await anyio.sleep(_LOOK_AGAIN_SECONDS)
            found = await self._haproxy.runtime.statistics(names)


def _total(rows: list[Stat]) -> Counts:
    return sum((row.counts for row in rows), _NONE)
