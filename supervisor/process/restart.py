"""Whether and when an ended process is started again: decided from plain values, no clock and no process here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class RestartMode(StrEnum):
    """`no` never, `on-failure` unless it exited cleanly, `always` whatever it did."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


@dataclass(frozen=True)
class RestartPolicy:
    """Backoff and the limit of restarts; seconds throughout (numbers: Pebble's).

    The first restart after a healthy run is immediate, then `base_seconds` doubles up to `cap_seconds`, each
    +- `jitter`. More than `limit` restarts within `window_seconds` is giving up; `limit` 0 never gives up.
    """

    mode: RestartMode = RestartMode.ON_FAILURE
    base_seconds: float = 0.5
    factor: float = 2.0
    cap_seconds: float = 30.0
    jitter: float = 0.1
    limit: int = 5
    window_seconds: float = 120.0

    def unreachable_limit(self) -> str | None:
        """Why the limit can never be met, or None: the delays before it must fit in half the window.

        A cap and a limit that cancel each other loop for ever, as systemd units with a large cap do.
        """
        if self.limit == 0:
            return None
        total = sum(self.nominal_delay(attempt) for attempt in range(1, self.limit + 1))
        if total >= self.window_seconds / 2:
            return (
                f"{self.limit} restarts take {total:.1f} s of backoff, more than half the window of "
                f"{self.window_seconds:.0f} s, so the limit could never be reached; "
                f"raise the window above {2 * total:.0f} s or lower the limit"
            )
        return None

    def nominal_delay(self, attempt: int) -> float:
        """Seconds before restart number `attempt` (0 is the first) without jitter."""
        if attempt == 0:
            return 0.0
        # Compared in the exponent first: factor**attempt overflows long before the cap matters.
        if attempt > 64:
            return self.cap_seconds
        return min(self.cap_seconds, self.base_seconds * self.factor ** (attempt - 1))


@dataclass(frozen=True)
class End:
    """One ended run: when (monotonic seconds), whether it was clean, and whether it had been healthy long enough."""

    at: float
    clean: bool
    was_healthy: bool


@dataclass(frozen=True)
class Again:
    """Start it again after `delay_seconds`."""

    delay_seconds: float


@dataclass(frozen=True)
class Done:
    """It ended as it may; leave it."""


@dataclass(frozen=True)
class GiveUp:
    """It ended too often, or may not be restarted."""

    reason: str


Step = Again | Done | GiveUp


def decide(
    policy: RestartPolicy, ends: Sequence[End], now: float, uniform: Callable[[float, float], float] = random.uniform
) -> Step:
    """What to do after the last of `ends` (oldest first; the last one is what just happened).

    Spawn errors, quick exits, failed readiness and liveness restarts all count alike. A stop that was asked for
    must not be handed in here: it never restarts.
    """
    last = ends[-1]
    if policy.mode is RestartMode.NO:
        return Done() if last.clean else GiveUp("its restart policy is `no`")
    if policy.mode is RestartMode.ON_FAILURE and last.clean:
        return Done()
    recent = [end for end in ends if now - end.at <= policy.window_seconds]
    if policy.limit and len(recent) > policy.limit:
        return GiveUp(f"it ended {len(recent)} times in {policy.window_seconds:.0f} s (limit {policy.limit})")
    delay = policy.nominal_delay(_attempt(ends))
    return Again(min(policy.cap_seconds, delay * uniform(1 - policy.jitter, 1 + policy.jitter)))


def _attempt(ends: Sequence[End]) -> int:
    """How many restarts in a row went before this one without a healthy run."""
    attempt = 0
    for end in reversed(ends):
        if end.was_healthy:
            break
        attempt += 1
    return attempt


def forget_old(policy: RestartPolicy, ends: Sequence[End], now: float) -> list[End]:
    """The ends that can still matter to a decision; keeps the list bounded however long the container lives.

    Those in the window count against the limit; those since the last healthy run, however old, make the backoff.
    """
    healthy = max((index for index, end in enumerate(ends) if end.was_healthy), default=0)
    kept = [end for index, end in enumerate(ends) if index >= healthy or now - end.at <= policy.window_seconds]
    return kept[-(max(policy.limit, 64) + 1) :]
