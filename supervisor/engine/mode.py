"""Which mode it is: `decide` is pure, `detect` reads and waits around it.

The rows are in `mode_table`, the texts of the errors in `mode_errors`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

import anyio

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode
from supervisor.engine import mode_errors
from supervisor.engine.decision import Decision, Wait
from supervisor.engine.evidence import evidence
from supervisor.engine.facts import Facts
from supervisor.engine.mode_table import Table

_POLL_SECONDS = 0.25


class Reader(Protocol):
    """Gives the facts as they are now."""

    async def read(self) -> Facts:
        """Never raises."""
        ...


async def pause(wait: Wait) -> None:
    """The plain way to wait: a moment, then look again."""
    await anyio.sleep(_POLL_SECONDS)


async def detect(
    reader: Reader, wait: Callable[[Wait], Awaitable[None]] = pause, *, now: Callable[[], float] = time.monotonic
) -> Decision:
    """Read and decide until it is decided; raises EngineError. `wait` is called between two readings and may tell
    the log. Cancelling leaves nothing behind."""
    since: float | None = None
    while True:
        facts = await reader.read()
        outcome = decide(facts, 0.0 if since is None else now() - since)
        if isinstance(outcome, Decision):
            return outcome
        since = now() if since is None else since
        await wait(outcome)


def decide(facts: Facts, waited_seconds: float = 0.0) -> Decision | Wait:
    """The first row that fits; raises EngineError where that is an error. `waited_seconds` is since the first Wait."""
    if facts.forced in (Mode.EMBEDDED, Mode.NONE):
        return Decision(mode=facts.forced, row=1, reason="chosen by SUPERVISOR_MODE")
    try:
        outcome = Table(facts, waited_seconds).outcome()
    except EngineError as error:
        # Where dind was asked for by name, "mount the socket" is no answer.
        if facts.forced is Mode.DIND and error.code in ("E07", "E08"):
            raise mode_errors.forced_dind_cannot_start(facts) from error
        raise
    if isinstance(outcome, Wait):
        return outcome
    return _as_forced(facts, replace(outcome, evidence=evidence(facts), warnings=_warnings(facts, outcome)))


def _as_forced(facts: Facts, decision: Decision) -> Decision:
    """Rows 1 and 2: a mode chosen by name must agree with what was found."""
    if facts.forced is None:
        return decision
    if facts.forced is not decision.mode:
        raise mode_errors.contradiction(facts, decision.mode, decision.reason)
    return replace(decision, row=1, reason=f"chosen by SUPERVISOR_MODE; {decision.reason}")


def _warnings(facts: Facts, decision: Decision) -> tuple[str, ...]:
    found: list[str] = []
    if decision.mode is Mode.SOCKET and facts.privileges.suffice and facts.forced is None:
        found.append(
            "the container is privileged and has a socket: the socket is used; SUPERVISOR_MODE=dind starts an engine "
            "of our own on another path, and without it --privileged can be left out"
        )
    endpoint = decision.endpoint
    if endpoint is not None and endpoint.host and endpoint.tls is None and not _is_loopback(facts):
        found.append(
            f"the engine at {endpoint.url!r} is spoken to without TLS: whoever can reach it is root on its machine"
        )
    if facts.unread:
        found.append(f"not everything could be read: {'; '.join(facts.unread)}")
    return tuple(found)


def _is_loopback(facts: Facts) -> bool:
    addresses = facts.connection.addresses
    return bool(addresses) and all(address.startswith("127.") or address == "::1" for address in addresses)
