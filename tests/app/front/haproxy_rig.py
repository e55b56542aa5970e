"""A real HAProxy for one app with all that it needs: sockets, a reaper, a holding answer, a folder it may enter."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import anyio
from anyio.abc import SocketStream, TaskStatus

from supervisor.app.front.haproxy.config import AppFront
from supervisor.app.front.haproxy.front import ProxyFront
from supervisor.app.front.haproxy.process import HAProxy, HAProxyOptions, unprivileged
from supervisor.app.front.model import Holding, Place, Traffic, Wire
from supervisor.app.front.ports import PortPool, default_range, listen
from supervisor.core.events import Event, EventBus
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from tests.app.front.http_app import App, Reader, answer, app_at

LIMIT_SECONDS = 60.0
T = TypeVar("T")


@dataclass
class Rig:
    """One app's front on a HAProxy of its own. `events` is what was published, `held` what clients were told."""

    folder: Path
    reaper: Reaper
    listeners: tuple[socket.socket, ...]
    haproxy: HAProxy
    front: ProxyFront
    ring: Ring
    bus: EventBus
    events: list[Event] = field(default_factory=list)
    held: list[Holding] = field(default_factory=list)

    @property
    def port(self) -> int:
        """The public port."""
        return int(self.listeners[0].getsockname()[1])

    @asynccontextmanager
    async def generation(self, name: str = "app") -> AsyncIterator[tuple[Place, App]]:
        """A place, and an app that listens there."""
        place = await self.front.take_place()
        async with app_at(place.port, name) as app:
            yield place, app

    async def traffic(self, place: Place) -> Traffic:
        found = await self.front.traffic(place)
        assert found is not None
        return found

    async def run(self, command: Command) -> tuple[int, str]:
        return await run_with(self.reaper, command)


async def run_with(reaper: Reaper, command: Command) -> tuple[int, str]:
    """See `RunProgram`."""
    ring = Ring(command.name)
    end = await reaper.spawn(command, ring).wait()
    return end.status, "\n".join(line.text for line in ring.tail(20))


@contextmanager
def entered_folder() -> Iterator[Path]:
    """A folder that HAProxy's user can reach; pytest's own is 0700."""
    path = Path(tempfile.mkdtemp(prefix="supervisor-test-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@asynccontextmanager
async def running_reaper() -> AsyncIterator[Reaper]:
    async with anyio.create_task_group() as group:
        reaper = Reaper(linger_seconds=5)
        await group.start(reaper.run)
        try:
            yield reaper
        finally:
            with anyio.CancelScope(shield=True):
                await reaper.end_all()
            group.cancel_scope.cancel()


@asynccontextmanager
async def open_rig(wire: Wire = Wire.HTTP, **settings: Any) -> AsyncIterator[Rig]:
    """A front that serves nobody yet; `settings` are those of `AppFront`. All is ended at the end of the block."""
    async with open_rigs("app", wire=wire, **settings) as (rig,):
        yield rig


@asynccontextmanager
async def open_rigs(*names: str, wire: Wire = Wire.HTTP, **settings: Any) -> AsyncIterator[tuple[Rig, ...]]:
    """As `open_rig`, one for each of these apps, all on one HAProxy."""
    with entered_folder() as folder, ExitStack() as sockets:
        listeners = {name: listen(0, hosts=("127.0.0.1", "::1")) for name in names}
        for listener in chain(*listeners.values()):
            sockets.enter_context(listener)
        async with AsyncExitStack() as stack:
            reaper = await stack.enter_async_context(running_reaper())
            held: list[Holding] = []
            rigs = _rigs(folder, reaper, listeners, held, wire=wire, **settings)
            group = await stack.enter_async_context(anyio.create_task_group())
            if wire is not Wire.TCP:
                await group.start(_hold, folder / "hold.sock", held)
            with anyio.fail_after(LIMIT_SECONDS):
                await group.start(rigs[0].haproxy.run)
                yield rigs
            group.cancel_scope.cancel()


def _rigs(
    folder: Path,
    reaper: Reaper,
    listeners: dict[str, tuple[socket.socket, ...]],
    held: list[Holding],
    **settings: Any,
) -> tuple[Rig, ...]:
    apps = [
        AppFront(
            name=name,
            public_port=own[0].getsockname()[1],
            public_fds=tuple(listener.fileno() for listener in own),
            hold_socket=os.fspath(folder / "hold.sock"),
            **settings,
        )
        for name, own in listeners.items()
    ]
    ring, bus, events = Ring("haproxy"), EventBus(), list[Event]()
    haproxy = HAProxy(
        apps,
        options=HAProxyOptions(folder=folder / "haproxy", identity=unprivileged()),
        reaper=reaper,
        ring=ring,
        run=lambda command: run_with(reaper, command),
        publish=bus.publish,
    )
    bus.subscribe(events.append)
    ports = PortPool(*ports_of_a_rig())
    return tuple(
        Rig(
            folder,
            reaper,
            own,
            haproxy,
            ProxyFront(haproxy, name, ports=ports, tell=held.append),
            ring,
            bus,
            events,
            held,
        )
        for name, own in listeners.items()
    )


async def _hold(path: Path, held: list[Holding], *, task_status: TaskStatus[None]) -> None:
    """Stands in for the holding answer."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await Reader(stream).head()
            await stream.send(
                answer(503, held[-1].reason.encode() if held else b"", "Retry-After: 2", "Connection: close")
            )

    async with await anyio.create_unix_listener(path) as listener:
        path.chmod(0o666)  # HAProxy connects as its own user
        task_status.started()
        await listener.serve(serve)


def ports_of_a_rig() -> tuple[int, int]:
    """Private ports for one rig, other ones than most rigs beside it use."""
    low, high = default_range(
        *(int(text) for text in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    )
    start = low + os.getpid() * 211 % max(1, high - low - 200)
    return start, start + 199


async def until(look: Callable[[], Awaitable[T]], wanted: Callable[[T], bool]) -> T:
    """The first look that is as wanted; fails with the last one after a limit."""
    deadline = anyio.current_time() + 10
    while not wanted(found := await look()):
        assert anyio.current_time() < deadline, found
        await anyio.sleep(0.005)
    return found
