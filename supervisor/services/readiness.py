"""Proving that a service works: probe until two good answers in a row come from the same running thing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import anyio
from tenacity import RetryCallState, Retrying
from tenacity.wait import wait_base, wait_exponential_jitter

from supervisor.probe.verdict import Answer, Probe, Verdict, waiting

CONFIRM_SECONDS = 0.02
_QUICK_SECONDS = 2.0
# Between probes at least, however much a service has to say: its log may hold a line for each refused probe.
_LEAST_GAP_SECONDS = 0.01
_LATER_GAP_SECONDS = 0.025


class ProbeWait(wait_base):
    """The probe schedule: every 25 ms for 2 s, every 75 ms to 60 s, then exponential with jitter to 2 s.

    A tenacity wait; `elapsed_seconds` is kept by the caller, so that a test's clock counts. (A cap of 2 s from the
    start would be late by a median of 763 ms.)
    """

    def __init__(self) -> None:
        self.elapsed_seconds = 0.0
        self._slow_attempts = 0
        self._tail = wait_exponential_jitter(multiplier=0.15, max=2.0, jitter=0.1)
        self._state = RetryCallState(Retrying(), None, (), {})

    def __call__(self, retry_state: RetryCallState) -> float:
        if self.elapsed_seconds < _QUICK_SECONDS:
            return 0.025
        if self.elapsed_seconds < 60.0:
            return 0.075
        self._slow_attempts += 1
        retry_state.attempt_number = self._slow_attempts
        return min(2.0, self._tail(retry_state))

    def next(self, elapsed_seconds: float) -> float:
        """Seconds until the next probe, `elapsed_seconds` after the first."""
        self.elapsed_seconds = elapsed_seconds
        return self(self._state)


class Subject(Protocol):
    """What is being proved: which incarnation runs now, and something to wait for between probes."""

    @property
    def incarnation(self) -> str | None:
        """Changes whenever the thing restarts; None while nothing runs."""

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """Why a good answer did not come from the thing we started; empty when it did."""

    def sign_mark(self) -> int:
        """Where the signs stand now, for `wait_sign`."""

    async def wait_sign(self, mark: int) -> None:
        """Return at a line of output, or any event worth a probe, that came after `mark`."""


class Anything:
    """A subject we did not start: every answer counts, there is nothing to wait for."""

    incarnation: str | None = ""

    def disowns(self, verdict: Verdict, port: int | None) -> str:
        """Never."""
        return ""

    def sign_mark(self) -> int:
        """Always the same."""
        return 0

    async def wait_sign(self, mark: int) -> None:
        """Never returns."""
        await anyio.sleep_forever()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When proving ends without success: after seconds, or after `retries` probes (0: no bound).

    `interval_seconds` None means the schedule. While answers say recovering, the deadline moves on, by
    `recovery_seconds` at most.
    """

    timeout_seconds: float
    recovery_seconds: float = 0.0
    retries: int = 0
    interval_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """How proving ended. `verdict` is the last one; `attempts` counts probes."""

    proved: bool
    verdict: Verdict
    attempts: int
    elapsed_seconds: float


@dataclass
class _Progress:
    """What `prove` remembers between probes."""

    started: float
    attempts: int = 0
    last: Verdict = field(default_factory=lambda: waiting("not probed yet"))
    good_for: str | None = None
    recovering_at: float | None = None

    def result(self, *, proved: bool) -> Proof:
        elapsed = anyio.current_time() - self.started
        return Proof(proved=proved, verdict=self.last, attempts=self.attempts, elapsed_seconds=elapsed)


async def prove(
    probe: Probe,
    limits: Limits,
    *,
    subject: Subject | None = None,
    port: int | None = None,
    on_verdict: Callable[[Verdict], None] | None = None,
) -> Proof:
    """Probe until proved, fatal, or out of time; cancelling it leaves nothing behind. Never raises for the service."""
    subject = subject or Anything()
    progress = _Progress(anyio.current_time())
    wait = ProbeWait()
    while True:
        before = subject.incarnation
        verdict = await _probe_within(probe, _time_left(progress, limits), progress.last)
        progress.attempts += 1
        verdict = _checked(verdict, before, subject, port)
        progress.last = verdict
        if verdict.recovering:
            progress.recovering_at = anyio.current_time()
        if on_verdict is not None:
            on_verdict(verdict)
        if verdict.good and progress.good_for == before:
            return progress.result(proved=True)
        progress.good_for = before if verdict.good else None
        if verdict.answer is Answer.FATAL or _out_of_bounds(progress, limits):
            return progress.result(proved=False)
        elapsed = anyio.current_time() - progress.started
        if verdict.good:
            await anyio.sleep(CONFIRM_SECONDS)
        elif limits.interval_seconds is not None:
            await anyio.sleep(limits.interval_seconds)
        else:
            least = _LEAST_GAP_SECONDS if elapsed < _QUICK_SECONDS else _LATER_GAP_SECONDS
            await _pause(wait.next(elapsed), subject, least=least)


async def _probe_within(probe: Probe, seconds: float, last: Verdict) -> Verdict:
    """One probe, cut off at the deadline: a probe that hangs must not outlive the service's own limit."""
    with anyio.move_on_after(max(seconds, 0.05)):
        return await probe()
    return waiting(f"no answer before the deadline; the one before it: {last.detail or last.answer}")


def _checked(verdict: Verdict, before: str | None, subject: Subject, port: int | None) -> Verdict:
    """A good answer counts only when it came from the thing we started, and that did not restart meanwhile."""
    if not verdict.good:
        return verdict
    if before is None or subject.incarnation != before:
        return waiting("it restarted while it was probed")
    stranger = subject.disowns(verdict, port)
    return waiting(stranger) if stranger else verdict


def _deadline(progress: _Progress, limits: Limits) -> float:
    """Each answer that says recovering gives the full time anew, up to the extension."""
    if progress.recovering_at is None:
        return progress.started + limits.timeout_seconds
    last = progress.started + limits.timeout_seconds + limits.recovery_seconds
    return min(last, progress.recovering_at + limits.timeout_seconds)


def _time_left(progress: _Progress, limits: Limits) -> float:
    return _deadline(progress, limits) - anyio.current_time()


def _out_of_bounds(progress: _Progress, limits: Limits) -> bool:
    late = _time_left(progress, limits)
    if progress.last.good:
        # One more probe decides. The second bounds a thing that restarts between all of its good answers.
        return late <= -1.0
    return late <= 0 or 0 < limits.retries <= progress.attempts


async def _pause(seconds: float, subject: Subject, *, least: float) -> None:
    """Sleep; wake at a sign of the subject that came since now, but not within `least` seconds."""
    mark = subject.sign_mark()
    with anyio.move_on_after(seconds):
        await anyio.sleep(min(least, seconds))
        await subject.wait_sign(mark)


RunCommand = Callable[[tuple[str, ...]], Awaitable[tuple[int, str]]]
"""Runs a command to its end; gives exit status and last line of output."""
