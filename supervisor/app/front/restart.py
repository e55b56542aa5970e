"""The front `restart`: the app has the public port itself, so one generation stops before the next one starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import replace

import anyio
from anyio.abc import TaskGroup, TaskStatus

from supervisor.app.front.holder import Holder
from supervisor.app.front.model import FrontError, FrontKind, Holding, Place, Traffic
from supervisor.core.errors import ConfigurationError
from supervisor.process.procfs import describe_port_owner

_FREE_TRIES = 100  # 2 s
_FREE_PAUSE_SECONDS = 0.02


class RestartFront:
    """See `Front`. While nobody serves the port is closed; `answer` opens it for the holding answer.

    `in_use` is False for an app without a port: then nothing is checked, and nothing answered.
    """

    kind = FrontKind.RESTART
    overlap = False

    def __init__(
        self, app: str, port: int, *, in_use: bool = True, redact: Callable[[str], str] = lambda text: text
    ) -> None:
        self._app = app
        self._port = port
        self._in_use = in_use
        self._redact = redact
        self._group: TaskGroup | None = None
        self._answering: anyio.CancelScope | None = None
        self._closed = anyio.Event()
        self._given: Place | None = None
        self._number = 0

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Own the holding answer until cancelled."""
        async with anyio.create_task_group() as self._group:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def room(self) -> int:
        """See `Front`: there is one place, and whoever has it goes first."""
        return 0 if self._given is not None else 1

    async def take_place(self) -> Place:
        """See `Front`. The port may be closing still; a stranger on it is an error that names it."""
        if self._given is not None:
            raise FrontError(
                f"cannot give another generation of {self._app!r} a place: port {self._port} is with the one before; "
                f"end that first"
            )
        await self._end_answer()
        for _ in range(_FREE_TRIES):
            if not self._in_use or port_is_free(self._port):
                return self._give()
            await anyio.sleep(_FREE_PAUSE_SECONDS)
        raise ConfigurationError(
            f"cannot start app {self._app!r}: port {self._port} is taken by {describe_port_owner(self._port)}; "
            f"stop that or choose another with PORT"
        )

    def _give(self) -> Place:
        self._number += 1  # so that no two are alike
        self._given = Place(f"public {self._number}", "127.0.0.1", self._port, private=False)
        return self._given

    async def give_back(self, place: Place) -> None:
        """See `Front`."""
        if self._given == place:
            self._given = None

    async def switch(self, place: Place) -> None:
        """See `Front`: who listens serves."""
        if self._given != place:
            raise FrontError(f"cannot switch to port {place.port}: that place was given back")

    async def share(self, place: Place, percent: float) -> None:
        """See `Front`."""
        raise FrontError(
            "cannot share requests between two generations: the front is `restart`; install HAProxy for the other one"
        )

    async def wait(self) -> None:
        """See `Front`: nothing can wait at a closed port."""

    async def answer(self, holding: Holding) -> None:
        """See `Front`. Only for what failed: a port that is closed on purpose stays closed."""
        await self._end_answer()
        if not self._in_use or holding.phase != "failed":
            return
        holder = Holder.on_tcp(self._app, self._port)
        holder.tell(replace(holding, reason=self._redact(holding.reason)))
        self._answering, self._closed = anyio.CancelScope(), anyio.Event()
        assert self._group is not None, "run() must be running"
        self._group.start_soon(self._hold, holder, self._answering, self._closed)

    async def _hold(self, holder: Holder, scope: anyio.CancelScope, closed: anyio.Event) -> None:
        try:
            with scope:
                await holder.run()
        finally:
            holder.close()
            closed.set()

    async def _end_answer(self) -> None:
        if self._answering is not None:
            self._answering.cancel()
            await self._closed.wait()
            self._answering = None

    async def traffic(self, place: Place) -> Traffic | None:
        """See `Front`: nothing is seen of it here."""
        return None

    async def waiting(self) -> int:
        """See `Front`."""
        return 0


def port_is_free(port: int, host: str = "0.0.0.0") -> bool:
    """Whether `port` can be bound now. SO_REUSEADDR, as servers set it: connections closing still are no obstacle."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                return True  # the app may have what we lack; its own error will say
            raise
    return True
