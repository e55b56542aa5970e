"""The figures of a load run, and its answers, read."""

from __future__ import annotations

import json

import pytest

from tests.load.answer import Answer, parse
from tests.load.report import Report, Sample, Seen, percentile, summarize


def test_percentile_is_a_value_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]

    assert [percentile(values, percent) for percent in (50, 99, 99.9)] == [50, 99, 100]
    assert percentile([7.0], 50) == 7
    assert percentile([], 99) == 0


def test_summary_counts_failures_by_kind_and_method_and_keeps_them_out_of_the_percentiles() -> None:
    samples = [
        Sample(1.0, 1.002, "GET", "", 1),
        Sample(1.1, 1.104, "POST", "", 2),
        Sample(1.2, 1.3, "GET", "refused", None),
        Sample(1.3, 3.3, "POST", "reset", None),
        Sample(1.4, 1.5, "POST", "status 503", 2),
    ]

    found = summarize(samples)

    assert (found.sent, found.answered, found.failed) == (5, 2, 3)
    assert found.failures == {"refused": 1, "reset": 1, "status 503": 1}
    assert found.failures_by_method == {"GET": {"refused": 1}, "POST": {"reset": 1, "status 503": 1}}
    assert found.longest_ms == pytest.approx(2000)
    assert found.p99_ms == pytest.approx(4)
    assert (found.first_failed_at, found.last_failed_at) == (1.3, 3.3)
    assert found.versions == {1: Seen(1, 1.002, 1.002), 2: Seen(2, 1.104, 1.5)}


def test_report_survives_json() -> None:
    report = Report(quiet=summarize([]), after=summarize([Sample(1.0, 1.5, "GET", "", 3)]), backwards=1)

    assert Report.from_dict(json.loads(json.dumps(report.as_dict()))) == report


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\napp-version: 7\r\n\r\nok", Answer(200, b"ok", 7, True)),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", None, False)),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbad\r\n0\r\n\r\n",
            Answer(500, b"bad", None, True),
        ),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", Answer(200, b"x", None, False)),
    ],
)
def test_answer_is_read_once_it_is_whole_and_not_before(data: bytes, answer: Answer) -> None:
    assert parse(data) == answer
    assert all(parse(data[:cut]) is None for cut in range(len(data)))


def test_answer_without_a_length_ends_with_its_connection() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\npart"

    assert parse(data) is None
    assert parse(data, ended=True) == Answer(200, b"part", None, False)


def test_answer_that_is_cut_short_is_none() -> None:
    assert parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart", ended=True) is None


def test_bytes_that_are_no_answer_are_an_error() -> None:
    with pytest.raises(ValueError, match="no HTTP answer"):
        parse(b"SSH-2.0-x\r\n\r\n")
