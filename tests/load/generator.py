"""The loop that sends by the clock. It needs a process of its own: whatever else runs in it makes answers look late."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.load.plan import Plan, Request, Requests
from tests.load.pool import Pool
from tests.load.report import Report, Sample, percentile, summarize

LONGEST_WAIT_SECONDS = 0.1  # so that a request to stop is noticed when little is sent

Say = Callable[[dict[str, Any]], None]


class Generator:
    """Sends the requests of a plan; `say` is told when it began and when a version of the app first answered."""

    def __init__(self, plan: Plan, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._pool = Pool(plan.address, plan.connections, self._done)
        self._requests = Requests(plan)
        self._under_way: deque[Request] = deque()  # in the order they were due, so the first is the first to expire
        self._samples: list[Sample] = []
        self._late: list[float] = []
        self._versions: set[int] = set()
        self._stopping = False

    def stop(self) -> None:
        """Send nothing more; `run` ends when what is on its way has ended. May be called by a signal handler."""
        self._stopping = True

    def run(self) -> Report:
        """Blocks to the end of the plan, or `stop`, and for what is on its way then, at most `limit_seconds` more."""
        began, used = time.monotonic(), time.process_time()
        self._say({"event": "began", "at": began})
        try:
            self._send_all(began)
            while self._under_way:
                self._turn(time.monotonic() + LONGEST_WAIT_SECONDS)
        finally:
            self._pool.close()
        share = (time.process_time() - used) / (time.monotonic() - began)
        return self._report(began + self._plan.quiet_seconds, share)

    def _send_all(self, began: float) -> None:
        sent, count = 0, int(self._plan.rate * self._plan.seconds)
        while sent < count and not self._stopping:
            due = began + sent / self._plan.rate
            self._turn(due)
            if time.monotonic() >= due:
                self._begin(due)
                sent += 1

    def _turn(self, until: float) -> None:
        """Wait a moment, but not beyond `until`, and handle what came."""
        self._pool.wait(min(until - time.monotonic(), LONGEST_WAIT_SECONDS))
        self._pool.work()
        self._expire(time.monotonic())

    def _begin(self, due: float) -> None:
        request = self._requests.make(due)
        self._under_way.append(request)
        self._late.append(time.monotonic() - due)
        self._pool.begin(request)

    def _expire(self, now: float) -> None:
        waiting = self._under_way
        while waiting and (waiting[0].ended or waiting[0].due + self._plan.limit_seconds <= now):
            request = waiting.popleft()
            if not request.ended:
                self._pool.give_up(request)

    def _done(self, request: Request, failure: str, version: int | None) -> None:
        now = time.monotonic()
        self._samples.append(Sample(request.due, now, request.method, failure, version))
        if version is not None and version not in self._versions:
            self._versions.add(version)
            self._say({"event": "version", "version": version, "at": now})

    def _report(self, loud_from: float, share: float) -> Report:
        return Report(
            quiet=summarize(sample for sample in self._samples if sample.due < loud_from),
            after=summarize(sample for sample in self._samples if sample.due >= loud_from),
            backwards=self._pool.backwards,
            connections=self._pool.opened,
            let_go=self._pool.let_go,
            late_p99_ms=percentile(sorted(self._late), 99) * 1000,
            processor_share=share,
        )
