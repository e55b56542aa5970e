from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import subprocess
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.core import events
from supervisor.core.events import Event, GenerationState, Health, OverallState, ServiceState
from supervisor.core.secret import Secret
from supervisor.observe.log import TEXTS, LogSink, Record, capture_logging, level_of, wants_json
from supervisor.observe.writer import QUEUE_BYTES
from supervisor.process.meter import Rate
from supervisor.process.output import Dropped, Line, Ring

_AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


class Printed:
    """A sink that prints into a pipe, and what came out of it."""

    def __init__(self, **options: Any) -> None:
        self._read_end, self._write_end = os.pipe()
        fcntl.fcntl(self._write_end, fcntl.F_SETPIPE_SZ, 1024 * 1024)  # nobody reads it before the end
        self.sink = LogSink(descriptor=self._write_end, **options)

    def text(self) -> str:
        self.sink.close(5.0)
        os.close(self._write_end)
        with open(self._read_end) as file:
            return file.read()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def timezone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import time

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_event_is_one_json_line_with_its_values_as_keys() -> None:
    printed = Printed(as_json=True)
    printed.sink.publish(
        events.ServiceChanged(at=_AT, service="postgres", state=ServiceState.RUNNING, pid=42, elapsed_seconds=1.5)
    )
    assert printed.records() == [
        {
            "at": "2026-03-04T05:06:07.089Z",
            "level": "info",
            "event": "service.state",
            "msg": "service state",
            "source": "postgres",
            "service": "postgres",
            "state": "running",
            "pid": 42,
            "elapsed_seconds": 1.5,
        }
    ]


@pytest.mark.usefixtures("timezone")
def test_event_is_one_text_line_behind_its_source_in_brackets() -> None:
    printed = Printed(as_json=False)
    printed.sink.publish(
        events.ServiceHealthChanged(at=_AT, service="redis", health=Health.UNHEALTHY, error='got "LOADING"', attempts=3)
    )
    assert printed.text() == (
        '05:06:07.089 warn  [redis] service health health=unhealthy error="got \\"LOADING\\"" attempts=3\n'
    )


@pytest.mark.usefixtures("timezone")
def test_child_line_is_printed_behind_its_source_as_the_child_wrote_it() -> None:
    printed = Printed(as_json=False, level="error")
    printed.sink.line(Line(1, _AT, "postgres", "stderr", "LOG:  \x1b[1mready\x1b[0m"))
    assert printed.text() == "05:06:07.089 err   [postgres] LOG:  \x1b[1mready\x1b[0m\n"


def test_child_line_in_json_has_source_and_stream() -> None:
    printed = Printed(as_json=True)
    printed.sink.line(Line(1, _AT, "app", "stdout", 'with "quotes"'))
    assert printed.records() == [
        {
            "at": "2026-03-04T05:06:07.089Z",
            "level": "info",
            "event": "output",
            "msg": 'with "quotes"',
            "source": "app",
            "stream": "stdout",
        }
    ]


@pytest.mark.usefixtures("timezone")
def test_report_of_several_lines_follows_indented() -> None:
    printed = Printed(as_json=False)
    printed.sink.publish(events.ServiceGaveUp(at=_AT, service="redis", error="gave up", report="first\nsecond \x1b[2J"))
    assert printed.text() == (
        '05:06:07.089 error [redis] service gave up error="gave up"\n    report:\n    | first\n    | second \\x1b[2J\n'
    )


@pytest.mark.usefixtures("timezone")
def test_notice_is_its_own_text_and_mappings_become_blocks() -> None:
    printed = Printed(as_json=False)
    printed.sink.publish(events.Warned(at=_AT, message="unknown setting X"))
    printed.sink.publish(events.BootFinished(at=_AT, elapsed_seconds=2.0, addresses={"control socket": "/run/x"}))
    assert printed.text().splitlines() == [
        "05:06:07.089 warn  [supervisor] unknown setting X",
        "05:06:07.089 info  [supervisor] boot finished elapsed_seconds=2.0",
        "    addresses:",
        "    | control socket  /run/x",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_ever_printed(as_json: bool) -> None:
    printed = Printed(as_json=as_json)
    printed.sink.register_secret(Secret("s3cr3t-value"))
    printed.sink.publish(events.Warned(message="s3cr3t-value", detail="postgresql://u:other@h/d"))
    printed.sink.publish(events.BootFinished(elapsed_seconds=1.0, addresses={"db": "s3cr3t-value"}))
    printed.sink.publish(events.ServiceGaveUp(service="x", error="e", report="line\ns3cr3t-value"))
    printed.sink.line(Line(1, _AT, "app", "stdout", "my password is s3cr3t-value"))
    text = printed.text()
    assert "s3cr3t-value" not in text
    assert ":other@" not in text
    assert text.count("***") == 5


@pytest.mark.parametrize(("level", "shown"), [("info", 3), ("warning", 2), ("error", 1)])
def test_level_bounds_our_own_lines(level: str, shown: int) -> None:
    printed = Printed(as_json=True, level=level)
    for event in (events.Notice(message="a"), events.Warned(message="b"), events.Errored(message="c")):
        printed.sink.publish(event)
    assert len(printed.records()) == shown


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (events.ServiceChanged(service="x", state=ServiceState.RUNNING), "info"),
        (events.ServiceChanged(service="x", state=ServiceState.BACKOFF), "warning"),
        (events.ServiceChanged(service="x", state=ServiceState.FAILED), "error"),
        (events.GenerationChanged(app="app", generation=1, state=GenerationState.FAILED), "error"),
        (events.AppHealthChanged(app="app", health=Health.UNHEALTHY), "warning"),
        (events.OverallChanged(state=OverallState.DEGRADED), "warning"),
        (events.OverallChanged(state=OverallState.FAILED), "error"),
        (events.ReloadFinished(source="file", result="rejected"), "error"),
        (events.ReloadFinished(source="file", result="ok"), "info"),
        (events.HookFinished(hook="cron", ok=False), "warning"),
        (events.AppHeld(app="app", reason="gave up"), "error"),
    ],
)
def test_bad_news_are_printed_louder(event: Event, level: str) -> None:
    assert level_of(event) == level


def _event_types(base: type[Event] = Event) -> Iterator[type[Event]]:
    for kind in base.__subclasses__():
        if kind.__module__ == events.__name__:
            yield kind
            yield from _event_types(kind)


def test_every_event_has_a_constant_text_or_its_own_message() -> None:
    unknown = [kind for kind in _event_types() if kind not in TEXTS and not issubclass(kind, events.Notice)]
    assert unknown == []


@pytest.mark.parametrize(("log_format", "terminal", "wanted"), [("json", True, True), ("text", False, False)])
def test_log_format_can_be_forced(log_format: str, terminal: bool, wanted: bool) -> None:
    descriptor = os.openpty()[1] if terminal else os.open("/dev/null", os.O_WRONLY)
    assert wants_json(log_format, descriptor) is wanted
    os.close(descriptor)


def test_log_format_is_text_on_a_terminal_alone() -> None:
    master, slave = os.openpty()
    null = os.open("/dev/null", os.O_WRONLY)
    assert (wants_json("auto", slave), wants_json("auto", null)) == (False, True)
    for descriptor in (master, slave, null):
        os.close(descriptor)


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers[:], _ = before
    root.setLevel(before[1])
    logging.captureWarnings(False)


@pytest.mark.usefixtures("logging_restored")
def test_messages_of_libraries_are_part_of_the_log() -> None:
    printed = Printed(as_json=True)
    capture_logging(printed.sink)
    logger = logging.getLogger("asyncio")
    logger.info("not of interest")
    try:
        raise ValueError("a bug")
    except ValueError:
        logger.exception("task %s failed", 7)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old call", DeprecationWarning, stacklevel=1)
    error, warning = printed.records()
    assert (error["level"], error["logger"], error["msg"]) == ("error", "asyncio", "task 7 failed")
    assert "ValueError: a bug" in error["traceback"]
    assert warning["level"] == "warning"
    assert "old call" in warning["msg"]


def _python(code: str) -> str:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    return run.stdout.strip()


def test_log_does_not_load_rich_and_leaves_it_loadable() -> None:
    code = "import sys, supervisor.observe.log; print('rich' in sys.modules); import rich.table; print('ok')"
    assert _python(code) == "False\nok"


def test_log_keeps_rich_where_it_was_loaded_before() -> None:
    code = "import rich, sys, supervisor.observe.log; print(sys.modules['rich'] is rich)"
    assert _python(code) == "True"


def test_render_callbacks_are_independent_of_global_structlog_settings() -> None:
    silence: Callable[..., None] = lambda *_: None  # noqa: E731
    import structlog

    structlog.configure(processors=[silence])  # type: ignore[list-item]
    try:
        printed = Printed(as_json=True)
        printed.sink.publish(events.Notice(message="still there"))
        assert printed.records()[0]["msg"] == "still there"
    finally:
        structlog.reset_defaults()


_values = st.one_of(
    st.text(alphabet=st.characters(), max_size=50),
    st.sampled_from(["\x00\x1b[31m\r", "a\u2028b\u2029c\x85", "\ud800 lone \udfff", '"\\', "\n\n", "\ufffe\U0010ffff"]),
    st.floats(),
    st.integers(),
    st.binary(max_size=9),
    st.none(),
)


@settings(max_examples=60, deadline=None)
@example([("not a number", {"a": math.nan}), ("endless", {"b": math.inf}), ("two\u2028lines", {"c": "\x85"})])
@given(st.lists(st.tuples(st.text(max_size=40), st.dictionaries(st.sampled_from("abcdef"), _values)), max_size=5))
def test_each_record_is_one_line_of_valid_json_whatever_is_in_it(records: list[tuple[str, dict[str, Any]]]) -> None:
    printed = Printed(as_json=True)
    for text, keys in records:
        printed.sink.record(Record(_AT, "info", "log", text, keys=keys))
    lines = printed.text().splitlines()
    assert len(lines) == len(records)
    assert all(isinstance(_strictly(line), dict) for line in lines)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from(
                [b"\xed\xa0\x80", b"\xff\xfe", "\u2028\u2029\x85".encode(), b"\x00\x1b]0;x\x07", b'"\\u12', b"\r\n"]
            ),
            st.integers(16_370, 16_400).map(lambda size: b"x" * size),
        ),
        max_size=12,
    )
)
def test_each_line_of_a_child_is_one_line_of_valid_json_whatever_it_prints(pieces: list[bytes]) -> None:
    printed = Printed(as_json=True)
    ring = Ring("app", on_line=printed.sink.line)
    framer = ring.framer("stderr")
    for piece in pieces:
        framer.feed(piece)
    framer.close()
    found = [_strictly(line) for line in printed.text().splitlines()]
    assert [one["n"] for one in map(Line.as_dict, ring.tail(10**6))] == list(range(1, len(found) + 1))
    assert [one["msg"] for one in found] == [line.text for line in ring.tail(10**6)]
    assert {one["source"] for one in found} <= {"app"}


def _strictly(line: str) -> dict[str, Any]:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    value: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return value


def test_dropped_output_is_said_with_its_counts() -> None:
    printed = Printed(as_json=True)
    printed.sink.dropped(Dropped("api", "stderr", 12, 3456, Rate(lines=100, bytes=1024 * 1024)))
    (record,) = printed.records()
    assert record["event"] == "log.dropped"
    assert record["level"] == "warning"
    assert record["msg"] == "log lines dropped: api printed faster than 100 lines or 1 MiB a second"
    assert (record["source"], record["stream"], record["count"], record["bytes"]) == ("api", "stderr", 12, 3456)


def test_queue_of_lines_that_nobody_reads_is_bounded_by_the_memory_they_take() -> None:
    read_end, write_end = os.pipe()
    sink = LogSink(descriptor=write_end, as_json=True)
    ring = Ring("app", on_line=sink.line, max_bytes=1000)
    tracemalloc.start()
    try:
        for number in range(20_000):
            ring.add("漢🦊" * 100 + str(number))  # 4 bytes a character in memory
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        os.close(read_end)
        sink.close(1.0)
        os.close(write_end)
    assert size < 1.5 * QUEUE_BYTES
    assert sink.lines_lost > 10_000
