"""Whether a Traefik of ours works: one attempt, whoever runs it."""

from __future__ import annotations

from pathlib import Path

from supervisor.probe.http import probe_http
from supervisor.probe.verdict import Verdict, waiting
from supervisor.services.traefik_files import READY_PATH


async def probe_traefik(base: str, dynamic_folder: Path, *, limit_seconds: float) -> Verdict:
    """A route of the dynamic files, which are loaded after the entry points listen; else `/ping` tells more.

    `base` is the URL of its ping entry point.
    """
    ready = await probe_http(base + READY_PATH, limit_seconds=limit_seconds, expect=(200,))
    if ready.verdict.good or ready.status is None:
        return ready.verdict
    alive = await probe_http(f"{base}/ping", limit_seconds=limit_seconds, expect=(200,))
    if not alive.verdict.good:
        return alive.verdict
    return waiting(f"it runs, but the files in {str(dynamic_folder)!r} are not loaded")
