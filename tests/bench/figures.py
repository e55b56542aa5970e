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
class Table:
    """Cells that are no figures over runs, such as those of many programs side by side. The first column is a name."""

    title: str
    head: Sequence[str]
    lines: list[Sequence[str]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Section:
    """The outcome of one benchmark: a table, how it was made, more tables, and what was seen besides."""

    name: str
    title: str
    method: str
    rows: list[Row] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


HEAD = ["", "best", "median", "worst", "runs", "target", ""]


def as_markdown(section: Section) -> str:
    """The section's body; its heading is the results file's."""
    lines = [section.method, "", _line(HEAD), "|---|--:|--:|--:|--:|--:|---|"]
    lines += [_line(row.cells()) for row in section.rows]
    for table in section.tables:
        lines += ["", f"{table.title}:", "", _line(table.head), "|---|" + "--:|" * (len(table.head) - 1)]
        lines += [_line(cells) for cells in table.lines]
    if section.notes:
        lines += ["", *(f"- {note}" for note in section.notes)]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def as_text(section: Section) -> str:
    """The section for a terminal."""
    lines = [f"== {section.name}: {section.title}"]
    lines += _aligned([HEAD, *(row.cells() for row in section.rows)], left=(0, len(HEAD) - 1))
    for table in section.tables:
        lines += ["", f"{table.title}:", *_aligned([table.head, *table.lines], left=(0,))]
    return "\n".join([*lines, *(f"  - {note}" for note in section.notes)])


def _aligned(table: Sequence[Sequence[str]], *, left: Sequence[int]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
