"""The stop in order: the apps, then the services, within the time that is given to us. Wiring."""

from __future__ import annotations

import os
from functools import partial

import anyio

from supervisor.parts import Parts
from supervisor.services.plan import app_share

STOP_SECONDS_AS_PID1 = 8.5  # Docker kills after 10
STOP_SECONDS = 60.0
_SPARE_SECONDS = 1.5


async def stop_in_order(parts: Parts) -> None:
    """Upper bounds throughout, and nothing waits for what is already gone."""
    total = _budget(parts)
    deadline = anyio.current_time() + total
    grace = app_share(total, parts.settings.app_stop_seconds, parts.orchestrator.stop_seconds)
    async with anyio.create_task_group() as group:
        for app in parts.running_apps:
            group.start_soon(partial(app.stop, grace, reason="stop"))
    if parts.stack is not None:
        await parts.stack.leave()
    await parts.orchestrator.stop_all(max(0.5, deadline - anyio.current_time()))


def _budget(parts: Parts) -> float:
    """Seconds for the whole stop: what is set; else what our container is given before it is killed."""
    if parts.settings.stop_seconds is not None:
        return parts.settings.stop_seconds
    decision = parts.placement.decision
    if decision is not None and decision.stop_seconds is not None:
        return max(1.0, decision.stop_seconds - _SPARE_SECONDS)
    return STOP_SECONDS_AS_PID1 if os.getpid() == 1 else STOP_SECONDS
