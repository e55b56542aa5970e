"""Whether a new generation answers worse than the one before it, decided from counts; no clock and no reading here."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from supervisor.app.front.model import Traffic

WINDOW_SECONDS = 1.0
READ_SECONDS = 0.05
"""How often the counts are to be read: so is what is worse seen within 250 ms of the first bad answer."""
ERRORS = 3
_TIMES_WORSE = 2.0
_MORE = 0.01
# The log-likelihood ratio from which two shares are not equal by chance. In simulation, with two windows read every
# 50 ms, 12 gives less than one false alarm in 5,000 bakes of 5 s (1,000 of 30 s); the two lines above alone give one in
# two at 5 requests a second with a fifth of them failed.
_EVIDENCE = 12.0
# What is held for known of a generation before it has answered: one failed request in a hundred, on the weight of 50.
_PRIOR_BAD = 0.5
_PRIOR_TOTAL = 50.0
_SPACING_SECONDS = WINDOW_SECONDS / 50


def bad(traffic: Traffic) -> int:
    """Requests that did not get a good answer: 5xx, or none at all."""
    return traffic.failed + traffic.unreached


def total(traffic: Traffic) -> int:
    """Requests that are through, one way or the other."""
    return traffic.answered + traffic.unreached


def share(traffic: Traffic) -> float:
    """The share of bad ones, 0 to 1; 0 where there were none."""
    return bad(traffic) / total(traffic) if total(traffic) else 0.0


@dataclass(frozen=True)
class _Reading:
    at: float
    new: Traffic
    old: Traffic


class Bake:
    """Judges one new generation, by the last second and by all since the switch.

    `baseline` is what the generation before answered while it served (`Traffic()` where that is not known): the last
    minute tells more than the last week. It takes `errors` bad answers, more than twice the old share and one in a
    hundred, and that chance does not explain them: three of three do against 50 good ones, four of four against none.
    """

    def __init__(self, baseline: Traffic, *, errors: int = ERRORS) -> None:
        self._baseline = baseline
        self._errors = errors
        self._origin: _Reading | None = None
        self._readings: deque[_Reading] = deque()
        self._forgiven = 0

    def forgive(self, refused: int) -> None:
        """Hold the tries so far that made no connection, `refused` since the switch, against nobody."""
        self._forgiven = refused
        self._origin = _without_refused(self._origin) if self._origin is not None else None
        self._readings = deque(map(_without_refused, self._readings))

    def judge(self, now: float, traffic: Traffic, beside: Traffic | None = None) -> str:
        """Why the new generation is worse, with figures; empty while it is not. `now` are seconds of any one clock.

        `traffic` are its counts since the switch. In a canary `beside` are those of the one that serves beside it, from
        any start: they are compared over the same time then, so that what hits both is held against neither.
        """
        forgiven = min(self._forgiven, traffic.refused)
        traffic = replace(traffic, unreached=traffic.unreached - forgiven)
        reading = _Reading(now, traffic, beside or Traffic())
        origin = self._keep(reading)
        for words, start in (("in the last second", self._readings[0]), ("since the switch", origin)):
            new = traffic.since(start.new)
            old = reading.old.since(start.old)
            old = old if total(old) else self._baseline
            if is_worse(new, old, errors=self._errors):
                return f"{_words(new)} {words}; {_compared(old)}"
        return ""

    def _keep(self, reading: _Reading) -> _Reading:
        """Remember a reading, at most one each 20 ms and only those the last second needs; gives where all began."""
        origin = self._origin
        if origin is None:
            origin = self._begin(_Reading(reading.at, Traffic(), reading.old))
        elif _fell(self._readings[-1], reading):  # whoever counts was started again, from zero
            origin = self._begin(_Reading(reading.at, Traffic(), Traffic()))
        elif reading.at - self._readings[-1].at >= _SPACING_SECONDS:
            self._readings.append(reading)
        while len(self._readings) > 1 and self._readings[1].at <= reading.at - WINDOW_SECONDS:
            self._readings.popleft()
        return origin

    def _begin(self, origin: _Reading) -> _Reading:
        self._origin, self._readings = origin, deque([origin])
        return origin


def _without_refused(reading: _Reading) -> _Reading:
    return replace(reading, new=replace(reading.new, unreached=reading.new.lost))


def _fell(earlier: _Reading, later: _Reading) -> bool:
    return total(later.new) < total(earlier.new) or total(later.old) < total(earlier.old)


def is_worse(new: Traffic, old: Traffic, *, errors: int = ERRORS) -> bool:
    """Whether `new` fails more often than `old`, by more than chance would."""
    if bad(new) < errors or share(new) <= _TIMES_WORSE * share(old) + _MORE:
        return False
    return _evidence(new, old) >= _EVIDENCE


def _evidence(new: Traffic, old: Traffic) -> float:
    """How much likelier two shares are than one, as a logarithm (the G-test, halved)."""
    old_total, old_bad = total(old) + _PRIOR_TOTAL, bad(old) + _PRIOR_BAD
    pooled = (old_bad + bad(new)) / (old_total + total(new))
    return old_total * _divergence(old_bad / old_total, pooled) + total(new) * _divergence(share(new), pooled)


def _divergence(share: float, other: float) -> float:
    """Kullback and Leibler's, of two coins."""
    heads = share * math.log(share / other) if share > 0 else 0.0
    tails = (1 - share) * math.log((1 - share) / (1 - other)) if share < 1 else 0.0
    return heads + tails


def _words(new: Traffic) -> str:
    parts = ((new.failed, "answers 5xx"), (new.unreached, "without an answer"))
    kinds = ", ".join(f"{count} {words}" for count, words in parts if count)
    return f"{bad(new)} of {total(new)} requests failed ({100 * share(new):.3g} %: {kinds})"


def _compared(old: Traffic) -> str:
    if not total(old):
        return "the generation before had answered none"
    return f"of the generation before {bad(old)} of {total(old)} ({100 * share(old):.2g} %)"
