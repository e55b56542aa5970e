"""Records as an app may send them: in pieces, forged, endless."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from supervisor.detect.model import Place, Reader
from supervisor.detect.records import MAX_RECORD_BYTES, Records, parse


def line(**said: object) -> bytes:
    return json.dumps({"name": "A", "by": "app", "absent": True, **said}).encode()


def test_a_record_tells_of_a_read() -> None:
    read = parse(line(file="/app/main.js", line=3, column=7, default=5))
    assert read is not None
    assert (read.name, read.by, read.absent, read.default) == ("A", Reader.APP, True, 5)
    assert read.place == Place("/app/main.js", 3, 7)


def test_what_is_no_record_is_dropped() -> None:
    for name in ("", "a b", "A\x1b[2J", "x" * 129, "1A", 5, None, "SUPERVISOR_SPAWN", "SUPERVISOR_DETECT_RECORDS"):
        assert parse(line(name=name)) is None
    for text in (b"", b"null", b"[]", b"\xff\xfe", b"[" * 100_000):
        assert parse(text) is None


def test_texts_that_move_a_terminal_are_not_taken() -> None:
    read = parse(line(file="/app/\x1b[2J", line=1, library="\x9b", default="\u202e", type="\x00"))
    assert read is not None
    assert (read.place, read.library, read.default, read.type_name) == (None, "", None, "")


def test_lines_are_found_however_they_come() -> None:
    records = Records()
    for byte in line() + b"\n" + b"x" * 3 * MAX_RECORD_BYTES + b"\n" + line(name="B") + b"\n":
        records.feed(bytes([byte]))
    assert [read.name for read in records.reads] == ["A", "B"]


def test_no_more_than_the_limit_are_kept() -> None:
    records = Records(limit=3)
    records.feed((line() + b"\n") * 10)
    assert (len(records.reads), records.full) == (3, True)


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps).map(str.encode)
)
def test_no_line_raises(data: bytes) -> None:
    parse(data)
    parse(b'{"name": "A", "file": ' + data + b"}")
