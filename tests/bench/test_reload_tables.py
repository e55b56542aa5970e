"""What the benchmark of reloads makes of its outcomes."""

from __future__ import annotations

import pytest

from tests.bench.figures import Section, as_markdown, as_text
from tests.bench.reload import tables
from tests.bench.reload.loads import Outcome, Timing
from tests.load.report import Summary

QUIET = Summary(sent=200, answered=199, failures={"reset": 1}, longest_ms=9, p99_ms=5)
AFTER = Summary(
    sent=600,
    answered=590,
    failures={"refused": 9, "reset": 1},
    longest_ms=1008,
    p50_ms=3.25,
    p99_ms=10,
    first_failed_at=7.0,
    last_failed_at=7.25,
)
OUTCOME = Outcome(QUIET, AFTER, [Timing(to_answer=1.25, own_start=1.0, after_up=0.2)])


def test_outcome_counts_failures_of_its_quiet_part_too() -> None:
    assert (OUTCOME.sent, OUTCOME.failed) == (800, 11)
    assert OUTCOME.failures == {"refused": 9, "reset": 2}
    assert OUTCOME.longest_ms == 1008
    assert OUTCOME.p99_ratio() == pytest.approx(2)


def test_load_table_tells_how_long_new_code_took_beyond_its_own_start() -> None:
    table = tables.of_load("a load", {"ours": OUTCOME, "other": OUTCOME}, {"ours": 14.0})

    ours, other = ([*line] for line in table.lines)
    assert ours[:7] == ["ours", "800", "11", "1008 ms", "3.2 ms", "10.0 ms", "5.0 ms"]
    assert ours[7:] == ["250 ms", "14.0 ms", "9 refused, 2 reset"]
    assert other[8] == "1250 ms", "who keeps nothing warm starts the old code anew"


def test_load_table_leaves_empty_what_never_came() -> None:
    (line,) = tables.of_load("a load", {"other": Outcome(QUIET, AFTER)}, {}).lines

    assert list(line[7:9]) == ["", ""]


def test_bad_answers_last_from_the_first_to_the_last() -> None:
    assert tables.bad_ms(OUTCOME) == pytest.approx(250)
    assert tables.bad_ms(Outcome(Summary(), Summary())) == 0


def test_tables_are_shown_in_both_forms_after_the_rows() -> None:
    broken = tables.of_broken({"ours": {"exit": OUTCOME, "deaf": OUTCOME}})
    section = Section(name="reload", title="t", method="m", tables=[broken, tables.of_crash({"ours": OUTCOME})])

    assert "| ours | 11 of 800 | 11 of 800 |" in as_markdown(section)
    assert "Broken releases: failed of sent:\n\n|  | exit | deaf |\n|---|--:|--:|" in as_markdown(section)
    assert "ours  11 of 800  11 of 800" in as_text(section)
