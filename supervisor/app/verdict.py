"""Whether a generation that gets requests is worse: what is counted, and where that is doubtful, a look of our own."""

from __future__ import annotations

import anyio

from supervisor.app.bake import Bake
from supervisor.app.front.model import Place, Traffic
from supervisor.probe.tcp import probe_tcp
from supervisor.probe.verdict import Answer

_ACCEPT_SECONDS = 1.0


async def why_worse(bake: Bake, place: Place, traffic: Traffic, beside: Traffic | None = None) -> str:
    """See `Bake.judge`. A generation is not condemned for connections that were not made while it takes connections.

    The proxy gives each try 40 ms and then makes another; on a machine that has no time for it, tries end that way with
    nobody to blame and no request lost.
    """
    now = anyio.current_time()
    why = bake.judge(now, traffic, beside)
    if why and traffic.refused:
        verdict = await probe_tcp(place.host, place.port, limit_seconds=_ACCEPT_SECONDS)
        if verdict.answer is Answer.GOOD:
            bake.forgive(traffic.refused)
            return bake.judge(now, traffic, beside)
    return why
