"""`results.md`: a section a benchmark. A run of some of them replaces only theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tests.bench import machine
from tests.bench.figures import Section, as_markdown

RESULTS = Path(__file__).parent / "results.md"

_HEAD = """\
# Benchmarks

Written by `scripts/bench`; do not edit. Each figure is the best, the median and the worst of its runs. `met` means that
the worst run met the target. Comparisons are made in the same run, side by side, with the same programs. Figures are
for comparing with each other on one machine, not with those of another.
"""


def merge(old: str, sections: Iterable[tuple[Section, str]], order: list[str]) -> str:
    """The new text: `sections` come with the load average they were measured at; others stay as they are."""
    kept: dict[str, str] = dict(re.findall(r"(?ms)^## (\S+):(.*?)(?=^## |\Z)", old))
    today = datetime.now(UTC).date().isoformat()
    for section, load in sections:
        made = f"Measured {today}; load average before it {load}."
        kept[section.name] = f" {section.title}\n\n{made}\n\n{as_markdown(section)}\n\n"
    facts = "\n".join(f"- {fact}" for fact in machine.describe())
    bodies = "".join(f"## {name}:{kept[name].rstrip()}\n\n" for name in order if name in kept)
    return f"{_HEAD}\n{facts}\n\n{bodies}".rstrip() + "\n"


def write(sections: Iterable[tuple[Section, str]], order: list[str]) -> None:
    """Bring the results file up to date."""
    old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    RESULTS.write_text(merge(old, sections, order), encoding="utf-8")
