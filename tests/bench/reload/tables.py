"""The outcomes as rows and tables. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from tests.bench.figures import Table
from tests.bench.reload.loads import Outcome

HEAD = (
    "",
    "sent",
    "failed",
    "longest wait",
    "p50",
    "p99",
    "p99, quiet",
    "new code beyond the app's start",
    "roll back",
    "failed by kind",
)


def of_load(name: str, found: Mapping[str, Outcome], back_ms: Mapping[str, float]) -> Table:
    """One load, a line each. `back_ms`: of those that keep the old code warm; others start it anew."""
    table = Table(title=f"Reload under {name}", head=HEAD)
    for who, outcome in found.items():
        waits = (outcome.after.p50_ms, outcome.after.p99_ms, outcome.quiet.p99_ms)
        table.lines.append(
            (
                who,
                str(outcome.sent),
                str(outcome.failed),
                milliseconds(outcome.longest_ms),
                *map(milliseconds, waits),
                _new_code(outcome),
                milliseconds(back_ms[who]) if who in back_ms else _anew(outcome),
                kinds(outcome),
            )
        )
    return table


def of_broken(found: Mapping[str, Mapping[str, Outcome]]) -> Table:
    """A line each, a column a way to be broken: failed of sent."""
    modes = list(next(iter(found.values()), {}))
    table = Table(title="Broken releases: failed of sent", head=("", *modes))
    for who, outcomes in found.items():
        table.lines.append((who, *(f"{outcomes[mode].failed} of {outcomes[mode].sent}" for mode in modes)))
    return table


def of_crash(found: Mapping[str, Outcome]) -> Table:
    """A line each."""
    table = Table(title="The app killed with -9", head=("", "sent", "failed", "longest wait", "failed by kind"))
    for who, one in found.items():
        table.lines.append((who, str(one.sent), str(one.failed), milliseconds(one.longest_ms), kinds(one)))
    return table


def kinds(outcome: Outcome) -> str:
    """How they failed, the most frequent first."""
    return ", ".join(f"{count} {kind}" for kind, count in outcome.failures.most_common())


def bad_ms(outcome: Outcome) -> float:
    """From the first bad answer to the last."""
    first, last = outcome.after.first_failed_at, outcome.after.last_failed_at
    return (last - first) * 1000 if first is not None and last is not None else 0.0


def milliseconds(value: float) -> str:
    """For a cell; empty for none."""
    if not value:
        return ""
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _new_code(outcome: Outcome) -> str:
    """Each order's time to the new code's answer, less what the app itself took to start."""
    return milliseconds(median([one.to_answer - one.own_start for one in outcome.timings] or [0]) * 1000)


def _anew(outcome: Outcome) -> str:
    return milliseconds(median([one.to_answer for one in outcome.timings] or [0]) * 1000)
