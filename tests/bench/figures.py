"""What a benchmark gives back, and how it is shown. Plain values; nothing is measured here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure over several runs. `target` is an upper bound; `ours` the values a comparison is set against.

    `why` is what a miss was found to come from; it is shown only where the target is missed.
    """

    what: str
    values: Sequence[float]
    unit: str = ""
    target: float | None = None
    ours: Sequence[float] | None = None
    note: str = ""
    why: str = ""

    def cells(self) -> list[str]:
        """The cells of the table: what, best, median, worst, runs, target, verdict."""
        if not self.values:
            return [self.what, "", "", "", "0", self._target(), self.note or "not measured"]
        middle, worst = median(self.values), max(self.values)
        return [
            self.what,
            self._number(min(self.values)),
            self._number(middle),
            self._number(worst),
            str(len(self.values)),
            self._target(),
            "; ".join(part for part in (self._verdict(middle, worst), self.note, self._why(worst)) if part),
        ]

    def _why(self, worst: float) -> str:
        return self.why if self.target is not None and worst > self.target else ""

    def _target(self) -> str:
        return "" if self.target is None else f"<= {self._number(self.target)}"

    def _number(self, value: float) -> str:
        digits = 0 if abs(value) >= 100 or float(value).is_integer() else 1 if abs(value) >= 10 else 2
        return f"{value:.{digits}f} {self.unit}".strip()

    def _verdict(self, middle: float, worst: float) -> str:
        if self.target is not None:
            if not self.target:
                return "met" if worst <= 0 else "MISSED"
            word = "met" if worst <= self.target else "met by the median" if middle <= self.target else "MISSED"
            return f"{word}: {middle / self.target:.2f} x the target, worst {worst / self.target:.2f} x"
        if self.ours and median(self.ours) > 0:
            return f"{middle / median(self.ours):.2f} x ours"
        return ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """The outcome of one benchmark: a table, how it was made, and what was seen besides."""

    name: str
    title: str
    method: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


HEAD = ["", "best", "median", "worst", "runs", "target", ""]


def as_markdown(section: Section) -> str:
    """The section's body; its heading is the results file's."""
    lines = [section.method, "", "| " + " | ".join(HEAD) + " |", "|---|--:|--:|--:|--:|--:|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row.cells()) + " |" for row in section.rows]
    if section.notes:
        lines += ["", *(f"- {note}" for note in section.notes)]
    return "\n".join(lines)


def as_text(section: Section) -> str:
    """The section for a terminal."""
    table = [HEAD, *(row.cells() for row in section.rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = [f"== {section.name}: {section.title}"]
    for row in table:
        cells = [
            cell.ljust(width) if column in (0, len(HEAD) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, *(f"  - {note}" for note in section.notes)])
