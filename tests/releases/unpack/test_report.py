"""What the child says, line by line."""

from __future__ import annotations

import json

import pytest

from supervisor.releases.unpack.report import Made, Progress, Report

DIGEST = "0123456789abcdef" * 4
OK = {"result": "ok", "entries": 2, "bytes": 5, "digest": DIGEST, "sha256": DIGEST}


def told(*lines: object, max_lines: int = 100) -> Report:
    report = Report(max_lines=max_lines)
    for line in lines:
        report.hear("stdout", line if isinstance(line, str) else json.dumps(line))
    return report


def test_report_takes_progress_record_and_result() -> None:
    report = told({"bytes": 3, "files": 1}, {"info": '{"a'}, {"info": '": 1}'}, OK)
    assert report.broken == ""
    assert report.progress == Progress(3, 1)
    assert report.info() == {"a": 1}
    assert report.made == Made(2, 5, DIGEST, DIGEST)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "hello",
        "[" * 10_000,
        "[]",
        "{}",
        {"bytes": 1},
        {"bytes": -1, "files": 1},
        {"bytes": True, "files": 1},
        {"bytes": 1.5, "files": 1},
        {"bytes": 2**60, "files": 1},
        {"info": 1},
        {"result": "ok"},
        {**OK, "digest": "0" * 63},
        {**OK, "digest": DIGEST + "\n"},
        {**OK, "sha256": DIGEST.upper()},
        {**OK, "entries": 200_001},
        {**OK, "entries": "2"},
        {"result": "refused"},
        {"result": "refused", "reason": "give me a shell"},
        {"result": "fine", "reason": "cannot tell"},
    ],
    ids=lambda line: str(line)[:60],
)
def test_report_is_broken_by_what_no_child_of_ours_says(line: object) -> None:
    report = told(line)
    assert report.broken
    assert (report.progress, report.made) == (Progress(0, 0), None)


def test_report_ends_with_its_result() -> None:
    assert told(OK, OK).broken == "it goes on after its result"
    assert told({"result": "refused", "reason": "cannot x"}, OK).broken == "it goes on after its result"


def test_report_is_bounded_in_lines_and_in_its_record() -> None:
    assert told(*[{"bytes": 1, "files": 1}] * 11, max_lines=10).broken == "it says too much"
    assert told(*[{"info": "x" * 10_000}] * 41).broken
    assert told(*[{"info": "x" * 10_000}] * 40).broken == ""


def test_reason_shows_nothing_that_moves_a_cursor() -> None:
    report = told({"result": "refused", "reason": "cannot \x1b[2J\u202e" + "x" * 9_000})
    assert report.reason.startswith("cannot ?[2J?xxx")
    assert len(report.reason) == 2_000


def test_last_words_are_the_last_lines_of_its_standard_error() -> None:
    report = Report(max_lines=100)
    for number in range(9):
        report.hear("stderr", f"line {number}")
    assert report.last_words == "line 4 / line 5 / line 6 / line 7 / line 8"


def test_record_that_is_no_object_is_an_error() -> None:
    with pytest.raises(ValueError):
        told({"info": "[1]"}).info()
