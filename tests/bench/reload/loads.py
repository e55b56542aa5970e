"""The loads, and one of them run while the app is reloaded."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.bench.reload.running import Running
from tests.load.plan import Plan
from tests.load.process import Load
from tests.load.report import Summary
from tests.load.wrk import Wrk

SEEN_SECONDS = 20.0
WRK = "wrk flat out on 50 connections"
KEPT = "1,500/s on 40 kept connections, half POST"
IN_FLIGHT = "2 s in flight, 20/s"
NEW = "a new connection each, 200/s"
LOADS: dict[str, dict[str, float]] = {
    NEW: {"rate": 200},
    "a new connection each, 1,000/s": {"rate": 1000},
    KEPT: {"rate": 1500, "connections": 40, "post_every": 2},
    IN_FLIGHT: {"rate": 20},
    WRK: {},
}


@dataclass(frozen=True)
class Timing:
    """Of one reload, in seconds: from the order to the first answer of the new code, and what the app itself took.

    `after_up` is from when the app was up, by its own word, to that answer.
    """

    to_answer: float
    own_start: float
    after_up: float


@dataclass
class Outcome:
    """What one load met. `sent` and what failed are of the whole run, as what is in flight when a reload is ordered was
    due in the quiet part; the waits are of the part after it."""

    quiet: Summary
    after: Summary
    timings: list[Timing] = field(default_factory=list)
    backwards: int = 0
    late_p99_ms: float = 0.0

    @property
    def sent(self) -> int:
        """Requests."""
        return self.quiet.sent + self.after.sent

    @property
    def failures(self) -> Counter[str]:
        """By kind."""
        return Counter(self.quiet.failures) + Counter(self.after.failures)

    @property
    def failed(self) -> int:
        """In all."""
        return self.failures.total()

    @property
    def longest_ms(self) -> float:
        """Of any request."""
        return max(self.quiet.longest_ms, self.after.longest_ms)

    def p99_ratio(self) -> float:
        """With reloads against without."""
        return self.after.p99_ms / self.quiet.p99_ms if self.quiet.p99_ms else 0.0


def plan(running: Running, name: str, quiet_seconds: float, limit_seconds: float = 10.0) -> Plan:
    """The load of that name on this app."""
    options = LOADS[name]
    return Plan(
        url=running.url("/sleep/2000" if name == IN_FLIGHT else "/"),
        rate=options["rate"],
        connections=int(options.get("connections", 0)),
        post_every=int(options.get("post_every", 0)),
        quiet_seconds=quiet_seconds,
        limit_seconds=limit_seconds,
    )


def reload_under(running: Running, name: str, *, reloads: int, seconds: float) -> Outcome:
    """So many seconds of quiet, then the reloads, each with as many seconds after it, under one load."""
    if name == WRK:
        return _under_wrk(running, reloads=reloads, seconds=seconds)
    timings = []
    with Load(plan(running, name, seconds)) as load:
        load.wait_quiet()
        for number in range(reloads):
            if number:
                running.settle()
            ordered = running.release()
            timing = _timing(running, ordered, _seen(load, running.version))
            if timing is not None and name != IN_FLIGHT:  # there an answer says nothing of when it was possible
                timings.append(timing)
            time.sleep(seconds)
        report = load.stop()
    return Outcome(report.quiet, report.after, timings, report.backwards, report.late_p99_ms)


def _under_wrk(running: Running, *, reloads: int, seconds: float) -> Outcome:
    """wrk cannot be told to stop early nor tells of versions, so its time is set before."""
    with Wrk(running.url(), seconds=max(1.0, seconds)) as wrk:
        quiet = wrk.summary()
    with Wrk(running.url(), seconds=reloads * (seconds + 4)) as wrk:
        for number in range(reloads):
            if number:
                running.settle()
            time.sleep(0.5)
            running.release()
        after = wrk.summary()
    return Outcome(quiet, after)


def _seen(load: Load, version: int) -> float | None:
    try:
        return load.version_at(version, SEEN_SECONDS)
    except TimeoutError:
        return None


def _timing(running: Running, ordered: float, seen: float | None) -> Timing | None:
    started, up = running.first("started", running.version), running.first("up", running.version)
    if seen is None or started is None or up is None:
        return None
    return Timing(seen - ordered, up.at - started.at, seen - up.at)
