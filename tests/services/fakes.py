"""A backend without a process; it passes tests/contracts."""

from __future__ import annotations

import time

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.probe.verdict import Verdict, good, waiting
from supervisor.process.child import Exit
from supervisor.process.output import Ring


class FakeBackend:
    """Does what its fields say; `die` ends what runs."""

    def __init__(self) -> None:
        self.ring = Ring("fake")
        self.says = ""
        self.ends_with: int | None = None
        self.ignores_stop = False
        self.start_error: SupervisorError | None = None
        self.starts = 0
        self.stops: list[float] = []
        self.retired: list[float] = []
        self.replaced = False
        self.outlives = False
        self.stranger = ""
        self._running = False
        self._end: Exit | None = None
        self._ended = anyio.Event()

    @property
    def incarnation(self) -> str | None:
        return str(self.starts) if self._running else "another" if self.replaced else None

    @property
    def pid(self) -> int | None:
        return 1000 + self.starts if self._running else None

    async def start(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.starts += 1
        self.replaced = False
        if self.start_error is not None:
            raise self.start_error
        self._running, self._ended = True, anyio.Event()
        if self.says:
            self.ring.add(self.says)
        if self.ends_with is not None:
            self.die(code=self.ends_with)

    def die(self, *, code: int | None = None, signal: int | None = None) -> None:
        self._running = False
        self._end = Exit(code, signal, time.monotonic())
        self._ended.set()

    async def wait_end(self) -> Exit:
        await self._ended.wait()
        assert self._end is not None
        return self._end

    async def stop(self, grace_seconds: float) -> None:
        if self.incarnation is None:
            return
        self.stops.append(grace_seconds)
        self.replaced = False
        if self.ignores_stop:
            await anyio.sleep(grace_seconds)
        self.die(signal=9 if self.ignores_stop else 15)

    async def abandon(self, grace_seconds: float) -> None:
        await self.stop(grace_seconds)

    async def retire(self, grace_seconds: float) -> None:
        self.retired.append(grace_seconds)
        if not self.outlives:
            await self.stop(grace_seconds)

    def sign_mark(self) -> int:
        return self.ring.number

    async def wait_sign(self, mark: int) -> None:
        await self.ring.wait_newer(mark)

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        return self.stranger or ("" if self._running else "its process has ended")


class FakeServer:
    """A probe whose answer the test sets."""

    def __init__(self, verdict: Verdict | None = None) -> None:
        self.verdict = verdict or good()
        self.asked = 0

    async def __call__(self) -> Verdict:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        return self.verdict

    def down(self, why: str = "refused") -> None:
        self.verdict = waiting(why)

    def up(self) -> None:
        self.verdict = good()
