"""Probes of a server whose password is being changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer, Verdict
from supervisor.store.rotating import RotatingSecret


async def probe_changing(record: RotatingSecret, ask: Callable[[Secret], Awaitable[Verdict]]) -> Verdict:
    """`ask` with what is recorded; where the server refuses that, with the next one, which it may have been told.

    Between the server's change and the record's, and after a kill there, only the next one is good.
    """
    first = record.current()
    if first is None:
        raise AssertionError("a recorded password is made before it is probed")
    verdict = await ask(first)
    # The next one first: when it is promoted between the two reads, the second has it.
    for other in (record.next(), record.current()):
        if verdict.answer is Answer.FATAL and other is not None and other != first:
            again = await ask(other)
            verdict = again if again.good else verdict
    return verdict
