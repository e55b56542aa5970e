"""Letting a generation finish what it has: requests within their limit, streams within theirs."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from supervisor.app.front.model import Front, FrontError, Place, Traffic
from supervisor.app.spec import ReloadLimits

LEAST_SECONDS = 0.25
"""A request that was given to it just before the switch is counted by then."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Drained:
    """How a drain ended: after how long, and what was cut."""

    elapsed_seconds: float
    requests: int = 0
    streams: int = 0

    def __str__(self) -> str:
        if not self.requests and not self.streams:
            return ""
        return f"{self.requests} requests and {self.streams} streams were cut after {self.elapsed_seconds:.1f} s"


def is_through(traffic: Traffic, elapsed: float, limits: ReloadLimits) -> bool:
    """Whether the generation may be ended now: nothing goes on there, or what does has had its time."""
    if elapsed < LEAST_SECONDS:
        return False
    waits_for_requests = traffic.in_flight > 0 and elapsed < limits.drain_seconds
    waits_for_streams = traffic.streams > 0 and elapsed < limits.stream_seconds
    return not waits_for_requests and not waits_for_streams


async def drain(front: Front, place: Place, limits: ReloadLimits, hurry: anyio.Event) -> Drained:
    """Wait until the place is empty or its time is over; `hurry` ends it at once, with whatever is left.

    Without counts (front `restart`) there is nothing to wait for. A front that cannot be asked just now is asked again,
    for as long as requests may take.
    """
    started = anyio.current_time()
    while True:
        traffic = await _read(front, place)
        elapsed = anyio.current_time() - started
        if traffic is None:
            return Drained(elapsed)
        if hurry.is_set() or is_through(traffic, elapsed, limits):
            return Drained(elapsed, traffic.in_flight, traffic.streams)
        with anyio.move_on_after(_POLL_SECONDS if elapsed < 1 else 5 * _POLL_SECONDS):
            await hurry.wait()


async def _read(front: Front, place: Place) -> Traffic | None:
    try:
        return await front.traffic(place)
    except FrontError:
        return Traffic(in_flight=1)  # for all we know
