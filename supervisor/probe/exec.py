"""A command as a health check: exit 0 is good."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from supervisor.probe.verdict import Verdict, good, waiting

_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


async def probe_exec(run: Callable[[], Awaitable[tuple[int, str]]], *, limit_seconds: float = 30.0) -> Verdict:
    """Run the check once; `run` gives its exit status and last output, and ends what it started when cancelled."""
    try:
        with anyio.fail_after(limit_seconds):
            status, output = await run()
    except TimeoutError:
        return waiting(f"the health command did not end within {limit_seconds:g} s")
    lines = output.strip().splitlines()
    last = lines[-1] if lines else ""
    if status == 0:
        return good(last)
    said = f": {last}" if last else ""
    if status in (_NOT_EXECUTABLE, _NOT_FOUND):
        return waiting(f"the health command cannot be run (status {status}){said}")
    return waiting(f"the health command ended with status {status}{said}")
