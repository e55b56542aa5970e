"""What a load run found: samples in, figures out. Nothing is sent here, and no clock is read."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One request. `due` is when it had to be sent, `ended` its answer or its failure; both monotonic seconds."""

    due: float
    ended: float
    method: str
    failure: str  # empty: answered well
    version: int | None  # of the app that answered


@dataclass(frozen=True)
class Seen:
    """The answers of one version of the app; times are monotonic seconds, which all processes share."""

    answered: int
    first_at: float
    last_at: float


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Waits are from when a request was due to its last byte, so a stall counts for all that fell into it.

    `longest_ms` is over all requests, the percentiles over those answered well.
    """

    sent: int = 0
    answered: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    failures_by_method: dict[str, dict[str, int]] = field(default_factory=dict)
    longest_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    p999_ms: float = 0.0
    first_failed_at: float | None = None
    last_failed_at: float | None = None
    versions: dict[int, Seen] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """All that was sent and not answered well."""
        return self.sent - self.answered


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run. `quiet` is of the requests due in its first, undisturbed seconds; `after` of all later ones.

    `backwards` counts answers by an older version than the one before on the same connection. `let_go` counts idle
    connections that the server closed: no failure, a pool makes a new one. `late_p99_ms` and `processor_share` tell
    whether the generator itself kept up.
    """

    quiet: Summary
    after: Summary
    backwards: int = 0
    connections: int = 0
    let_go: int = 0
    late_p99_ms: float = 0.0
    processor_share: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Report:
        """The other way."""
        rest = {key: value for key, value in values.items() if key not in ("quiet", "after")}
        return cls(quiet=_summary(values["quiet"]), after=_summary(values["after"]), **rest)


def _summary(values: dict[str, Any]) -> Summary:
    versions = {int(version): Seen(**seen) for version, seen in values["versions"].items()}
    return Summary(**{**values, "versions": versions})


def percentile(ordered: Sequence[float], percent: float) -> float:
    """By nearest rank, of values in order; 0 for none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def summarize(samples: Iterable[Sample]) -> Summary:
    """The figures of some requests."""
    everything = list(samples)
    bad = [sample for sample in everything if sample.failure]
    waits = sorted((sample.ended - sample.due) * 1000 for sample in everything if not sample.failure)
    by_method: dict[str, Counter[str]] = {}
    for sample in bad:
        by_method.setdefault(sample.method, Counter())[sample.failure] += 1
    return Summary(
        sent=len(everything),
        answered=len(waits),
        failures=dict(Counter(sample.failure for sample in bad)),
        failures_by_method={method: dict(kinds) for method, kinds in by_method.items()},
        longest_ms=max(((sample.ended - sample.due) * 1000 for sample in everything), default=0.0),
        p50_ms=percentile(waits, 50),
        p99_ms=percentile(waits, 99),
        p999_ms=percentile(waits, 99.9),
        first_failed_at=min((sample.ended for sample in bad), default=None),
        last_failed_at=max((sample.ended for sample in bad), default=None),
        versions=_versions(everything),
    )


def _versions(samples: Iterable[Sample]) -> dict[int, Seen]:
    times: dict[int, list[float]] = {}
    for sample in samples:
        if sample.version is not None:
            times.setdefault(sample.version, []).append(sample.ended)
    return {version: Seen(len(found), min(found), max(found)) for version, found in sorted(times.items())}
