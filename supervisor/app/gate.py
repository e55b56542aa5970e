"""The gate: what a generation must show before requests go to it, and the same question asked of a serving one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from supervisor.app.notify import Readiness
from supervisor.probe.http import HttpAnswer, probe_http
from supervisor.probe.tcp import probe_tcp
from supervisor.probe.verdict import Verdict, good, waiting
from supervisor.process.child import Child
from supervisor.process.leftovers import MARKER_VARIABLE
from supervisor.process.procfs import command_line, descends_from, has_environ, listens_on, port_owners

FIRST_SECONDS = 2.0
CONFIRM_SECONDS = 0.02

Reporter = Callable[[bool, str], None]
Excuse = Callable[[], str]
"""Why a bad answer is not the app's fault right now (a service it needs is down); empty when there is none."""


@dataclass(frozen=True)
class HealthCheck:
    """How an app is asked whether it works: `http` on a path (404 there: `/`), `tcp`, or `none` (running is ready)."""

    kind: str
    port: int
    path: str = "/api/health"
    host: str = "127.0.0.1"
    limit_seconds: float = 3.0


@dataclass(frozen=True)
class Pace:
    """How often a serving app is asked, and how many failures in a row make it hung."""

    interval_seconds: float
    retries: int


@dataclass(frozen=True)
class Passed:
    """The gate is passed; `path` is what answered (empty without HTTP)."""

    path: str
    attempts: int


@dataclass(frozen=True)
class Refused:
    """The gate was not passed within its time; `answer` is that to the last probe."""

    reason: str
    answer: str = ""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a start is allowed and asked, in seconds. It may ask for more time itself (EXTEND_TIMEOUT_USEC)."""

    start_seconds: float
    min_uptime_seconds: float = 0.0
    must_say_ready: bool = False


def pause_seconds(elapsed: float) -> float:
    """Seconds to the next probe of a starting app: 25 ms for 2 s, then 100 ms."""
    return 0.025 if elapsed < FIRST_SECONDS else 0.1


async def ask(check: HealthCheck, path: str) -> HttpAnswer:
    """One probe of the app on `path`; without HTTP the status is None."""
    if check.kind == "none":
        return HttpAnswer(None, good("no health check is set"))
    if check.kind == "tcp":
        return HttpAnswer(None, await probe_tcp(check.host, check.port, limit_seconds=check.limit_seconds))
    return await probe_http(f"http://{check.host}:{check.port}{path}", limit_seconds=check.limit_seconds)


async def pass_gate(child: Child, check: HealthCheck, readiness: Readiness, terms: Terms) -> Passed | Refused:
    """Wait until the app answers twice in a row from a process of `child`, within the start's time.

    Before its least uptime it does not pass: an app that answers once and dies must not get a request. Where the app is
    to say that it is ready, it is not asked before.

    The caller races this against the child's end. Cancelling leaves nothing behind.
    """
    started = anyio.current_time()
    path, attempts, good_before, last = check.path, 0, False, "not probed yet"
    while True:
        elapsed = anyio.current_time() - started
        allowed = max(terms.start_seconds, readiness.extended_until - started)
        if elapsed >= allowed:
            return Refused(f"not healthy after {allowed:.4g} s and {attempts} probes; last answer: {last}", last)
        if terms.must_say_ready and not readiness.ready:
            last = readiness.detail
            await anyio.sleep(pause_seconds(elapsed))
            continue
        answer = await ask(check, path)
        attempts += 1
        verdict = _from_ours(answer.verdict, child, check)
        last = verdict.detail
        if answer.status == 404 and path != "/":
            path = "/"
            continue
        if verdict.good and good_before and elapsed >= terms.min_uptime_seconds:
            return Passed(path if check.kind == "http" else "", attempts)
        good_before = verdict.good
        await anyio.sleep(CONFIRM_SECONDS if verdict.good else pause_seconds(elapsed))


def _from_ours(verdict: Verdict, child: Child, check: HealthCheck) -> Verdict:
    """A good answer on the app's port counts only from the app: a stranger on it would hide a dead app."""
    if not verdict.good or check.kind == "none" or listens_on(child.pid, check.port):
        return verdict
    owners = port_owners(check.port)
    if owners is None:
        return waiting(f"nothing listens on port {check.port} any more")
    entry = f"{MARKER_VARIABLE}={child.marker}".encode()
    # Without CAP_SYS_PTRACE another uid's listener cannot be looked into; the port was free before the spawn.
    if not owners or any(descends_from(pid, child.pid) or has_environ(pid, entry) for pid in owners):
        return verdict
    return waiting(f"port {check.port} is held by pid {owners[0]} ({command_line(owners[0])}), not by the app")


async def watch_liveness(
    check: HealthCheck,
    path: str,
    *,
    pace: Callable[[], Pace],
    on_answer: Reporter,
    excuse: Excuse,
) -> str:
    """Probe a serving app for ever; returns why once as many probes in a row failed as the pace allows.

    An app that answers, if only to say that its database is down, does not count as hung while that is so: a restart
    would not help, and would use up its budget. `on_answer(good, detail)` is told of every answer.
    """
    failures = 0
    while True:
        await anyio.sleep(pace().interval_seconds)
        answer = await _ask_within(check, path)
        why = answer.verdict.detail
        excused = excuse() if answer.status is not None and not answer.verdict.good else ""
        on_answer(answer.verdict.good, f"{why} (while {excused})" if excused else why)
        failures = 0 if answer.verdict.good or excused else failures + 1
        if failures >= pace().retries:
            return f"{failures} liveness probes in a row failed; last answer: {why}"


async def _ask_within(check: HealthCheck, path: str) -> HttpAnswer:
    with anyio.move_on_after(check.limit_seconds):
        return await ask(check, path)
    return HttpAnswer(None, waiting(f"no answer within {check.limit_seconds:g} s"))
