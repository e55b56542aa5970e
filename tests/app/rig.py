"""The rooms of an app around a front that fails or hangs on demand; what is started is real and small."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup, TaskStatus

from supervisor.app.app import App
from supervisor.app.front.model import FrontError, FrontKind, Holding, Place, Traffic
from supervisor.app.gate import HealthCheck
from supervisor.app.keeper import Keeper
from supervisor.app.lineup import Lineup
from supervisor.app.reload import Reload, Report
from supervisor.app.run import Ended, Run
from supervisor.app.spec import AppSpec, Launch, ReloadLimits
from supervisor.core.errors import SupervisorError
from supervisor.core.events import Event, GenerationChanged
from supervisor.core.requests import Canary
from supervisor.process.output import Ring
from supervisor.process.restart import RestartPolicy
from tests.app.front.haproxy_rig import running_reaper
from tests.app.front.http_app import Client, Reader, answer
from tests.e2e.harness import free_port
from tests.process.children import shell

LIMIT_SECONDS = 30.0
STAYS = "exec sleep 60"
_GONE = (anyio.BrokenResourceError, anyio.EndOfStream, anyio.IncompleteRead, anyio.ClosedResourceError)


@dataclass
class Hang:
    """A call that stops until `release`; `reached` is set when it is made."""

    reached: anyio.Event = field(default_factory=anyio.Event)
    release: anyio.Event = field(default_factory=anyio.Event)


class FakeFront:
    """A front of kind `proxy` in this process, with faults on demand: `fail` and `hang`.

    Without `serve` it only keeps account, which is all that most tests look at: `serving`, `held`, `shared`.
    """

    kind = FrontKind.PROXY

    def __init__(self, *, overlap: bool = True, lines: int = 3) -> None:
        self.overlap = overlap
        self.calls: list[str] = []
        self.places: dict[str, Place] = {}
        self.counts: dict[Place, Traffic] = {}
        self.serving: Place | None = None
        self.shared: tuple[Place, float] | None = None
        self.held: Holding | None = None
        self.port = 0
        self._free = [f"line-{number}" for number in range(lines)]
        self._faults: dict[str, list[Hang | None]] = {}
        self._moved = anyio.Event()
        self._asked = 0
        self._waiting = 0

    def fail(self, name: str, times: int = 1) -> None:
        """The next `times` calls of `name` raise FrontError, and do nothing."""
        self._faults.setdefault(name, []).extend([None] * times)

    def hang(self, name: str) -> Hang:
        """The next call of `name` stops, before it does anything, until it is released."""
        hang = Hang()
        self._faults.setdefault(name, []).append(hang)
        return hang

    async def _enter(self, name: str) -> None:
        self.calls.append(name)
        faults = self._faults.get(name)
        if not faults:
            return
        fault = faults.pop(0)
        if fault is None:
            raise FrontError(f"cannot {name}: told to fail")
        fault.reached.set()
        await fault.release.wait()

    @property
    def room(self) -> int:
        return len(self._free)

    async def take_place(self) -> Place:
        await self._enter("take_place")
        if not self._free:
            raise FrontError("cannot give another generation a place: all are taken")
        place = Place(self._free.pop(0), "127.0.0.1", free_port())
        self.places[place.line] = place
        return place

    async def give_back(self, place: Place) -> None:
        with suppress(FrontError):  # never raises
            await self._enter("give_back")
        if self.places.get(place.line) != place:
            return
        del self.places[place.line]
        self._free.append(place.line)
        if self.shared is not None and self.shared[0] == place:
            self.shared = None
        if self.serving == place:
            self._move(None)

    async def switch(self, place: Place) -> None:
        await self._enter("switch")
        self._require(place)
        self._move(place)

    async def share(self, place: Place, percent: float) -> None:
        await self._enter("share")
        self._require(place)
        self.shared = (place, percent) if percent else None

    async def wait(self) -> None:
        await self._enter("wait")
        self._move(None)

    async def answer(self, holding: Holding) -> None:
        await self._enter("answer")
        self._move(None, holding)

    async def traffic(self, place: Place) -> Traffic | None:
        await self._enter("traffic")
        return self.counts.get(place, Traffic())

    async def waiting(self) -> int:
        await self._enter("waiting")
        return self._waiting

    def _require(self, place: Place) -> None:
        if self.places.get(place.line) != place:
            raise FrontError(f"cannot switch to {place.line}: it was given back")

    def _move(self, place: Place | None, holding: Holding | None = None) -> None:
        self.serving, self.held, self.shared = place, holding, None
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take real requests on `port`, one a connection."""
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            self.port = listener.extra(SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._client)

    async def _client(self, stream: SocketStream) -> None:
        with suppress(*_GONE):
            async with stream:
                reader = Reader(stream)
                first, headers = await reader.head()
                body = await reader.body(headers)
                place = await self._target()
                if place is None:
                    reason = self.held.reason if self.held else ""
                    await stream.send(answer(503, reason.encode(), "Retry-After: 1"))
                    return
                await stream.send(await self._forward(place, first, body))

    async def _target(self) -> Place | None:
        self._waiting += 1
        try:
            while self.serving is None and self.held is None:
                await self._moved.wait()
        finally:
            self._waiting -= 1
        self._asked += 1
        if self.shared is not None and self._asked % round(100 / self.shared[1]) == 0:
            return self.shared[0]
        return self.serving

    async def _forward(self, place: Place, first: str, body: bytes) -> bytes:
        method, path, _ = first.split(" ")
        async with Client(place.port, host=place.host) as client:
            found = await client.ask(method, path, body)
        before = self.counts.get(place, Traffic())
        self.counts[place] = Traffic(
            answered=before.answered + 1, failed=before.failed + (1 if found.status >= 500 else 0)
        )
        return answer(found.status, found.body)


@dataclass
class Word:
    """A `Readiness` that says what the test says, once it says it."""

    ready: bool = False
    environ: tuple[tuple[str, str], ...] = ()
    pass_fds: tuple[int, ...] = ()
    detail: str = "it has said nothing"
    extended_until: float = 0.0

    def spawned(self) -> None:
        pass

    async def wait_ready(self) -> None:
        await until(lambda: self.ready)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        await anyio.sleep_forever()


@dataclass
class Room:
    """An app on a front, and all that was told. `words` are the readiness of each generation, by its number."""

    front: FakeFront
    app: App = field(init=False)
    group: TaskGroup = field(init=False)
    ring: Ring = field(default_factory=lambda: Ring("app"))
    events: list[Event] = field(default_factory=list)
    words: dict[int, Word] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)
    ends: list[SupervisorError | None] = field(default_factory=list)

    @property
    def lineup(self) -> Lineup:
        """The app's."""
        return self.app._lineup

    def spec(self, script: str = STAYS, *, says: bool = True, name: str = "app", **changes: Any) -> AppSpec:
        """An app that is ready as soon as its word is given; `says` gives it at once."""

        def command(launch: Launch) -> Any:
            self.launches.append(launch)
            return shell(f"PORT={launch.place.port}; export PORT; {script}")

        def readiness(number: int) -> Word:
            return self.words.setdefault(number, Word(says))

        values: dict[str, Any] = {
            "check": HealthCheck("none", 0),
            "must_say_ready": True,
            "stop_seconds": 5.0,
            "public_port": 1,
            "restart": RestartPolicy(base_seconds=0.01),
            "limits": ReloadLimits(bake_seconds=0.0, drain_seconds=5.0, stream_seconds=5.0),
        }
        return AppSpec(name=name, command=command, readiness=readiness, **{**values, **changes})

    async def begin(self, spec: AppSpec | None = None, *, beside: bool = False) -> Run:
        """A generation that passed the gate."""
        run = await self.lineup.cohort.begin(spec or self.spec(), beside=beside)
        await run.decided.wait()
        assert run.refusal == ""
        return run

    async def serve(self, spec: AppSpec | None = None) -> Run:
        """A generation that serves."""
        run = await self.begin(spec)
        await self.lineup.promote(run)
        return run

    def keeper(self, spec: AppSpec | None = None) -> Keeper:
        """For `keep`, which is the caller's to start."""
        return Keeper(
            spec or self.spec(), self.lineup, ring=self.ring, publish=self.events.append, on_end=self.ends.append
        )

    async def kept(self, spec: AppSpec | None = None) -> Keeper:
        """A keeper at work whose first generation serves."""
        keeper = self.keeper(spec)
        self.group.start_soon(keeper.keep)
        await keeper.settled.wait()
        assert keeper.failure is None
        return keeper

    def reload(self, keeper: Keeper, spec: AppSpec | None = None, canary: Canary | None = None) -> Reload:
        """A reload, for `run`."""
        return Reload(spec or self.spec(), self.lineup, keeper, Report(), canary)

    def states(self, number: int) -> list[str]:
        """What a generation went through, as told."""
        return [
            event.state.value
            for event in self.events
            if isinstance(event, GenerationChanged) and event.generation == number
        ]

    def told(self, kind: type[Event]) -> list[Any]:
        """Events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def active(self) -> Run:
        """The one that serves."""
        assert self.lineup.active is not None
        return self.lineup.active


@asynccontextmanager
async def open_room(
    front: FakeFront | None = None, script: str = STAYS, *, limit_seconds: float = LIMIT_SECONDS, **changes: Any
) -> AsyncIterator[Room]:
    """An app that is not started, and its lineup; everything is killed at the end, and the block has its limit.

    `script` and `changes` are those of `Room.spec`.
    """
    front = front or FakeFront()
    room = Room(front)
    async with running_reaper() as reaper:
        with anyio.fail_after(limit_seconds):
            async with anyio.create_task_group() as group:
                room.app = App(
                    room.spec(script, **changes),
                    front=front,
                    reaper=reaper,
                    ring=room.ring,
                    publish=room.events.append,
                    on_end=room.ends.append,
                )
                room.group = group
                await group.start(room.app.run)
                yield room
                for run in tuple(room.lineup.cohort.living):
                    run.child.signal_group(signal.SIGKILL)
                group.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Return once it holds; fails after a limit."""
    with anyio.fail_after(LIMIT_SECONDS):
        while not holds():
            await anyio.sleep(0.002)


def crash(run: Run) -> None:
    """Its process dies at once."""
    assert run.child.signal(9)


def hung(run: Run, why: str = "liveness probes failed") -> None:
    """It is found out to hang."""
    run.report(Ended(f"hung: {why}", hung=True))
