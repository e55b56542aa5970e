"""Records of reads as the preloads send them, a line of JSON each. The app can write there too: nothing is believed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from supervisor.detect.model import Place, Plain, Read, Reader

MAX_RECORDS = 100_000
MAX_RECORD_BYTES = 4096
OURS = re.compile(r"SUPERVISOR_(DETECT_\w+|SPAWN)$")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}$")
_MAX_TEXT = 1024


class Records:
    """Takes bytes as they come and gives reads. Bounded: after `MAX_RECORDS` lines the rest is dropped."""

    def __init__(self, *, limit: int = MAX_RECORDS) -> None:
        self._limit = limit
        self._rest = b""
        self._skipping = False
        self.lines = 0
        self.reads: list[Read] = []

    @property
    def full(self) -> bool:
        """Whether more came than is taken."""
        return self.lines >= self._limit

    def feed(self, data: bytes) -> None:
        """Take the next bytes; lines that are no record are dropped, too long ones as well."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._take(line)
        if len(self._rest) > MAX_RECORD_BYTES:
            self._rest, self._skipping = b"", True

    def _take(self, line: bytes) -> None:
        if self._skipping or len(line) > MAX_RECORD_BYTES:
            self._skipping = False
            return
        if self.full:
            return
        self.lines += 1
        read = parse(line)
        if read is not None:
            self.reads.append(read)


def parse(line: bytes) -> Read | None:
    """The read that a line tells of, or None where it is none."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    name = said.get("name")
    if not isinstance(name, str) or not _NAME.match(name) or OURS.match(name):
        return None
    by = said.get("by")
    return Read(
        name=name,
        # Told of no frame at all (eval, a string of code): nobody's library, so the app's.
        by=Reader(by) if by in list(Reader) else Reader.APP,
        absent=said.get("absent") is True,
        place=_place(said),
        raised=said.get("raised") is True,
        given=said.get("given") is True,
        loading=said.get("loading") is True,
        declared=said.get("declared") is True,
        default=_default(said.get("default")),
        type_name=_text(said.get("type")),
        library=_text(said.get("library")),
    )


def _place(said: Mapping[str, Any]) -> Place | None:
    file, line, column = _text(said.get("file")), said.get("line"), said.get("column", 0)
    if not file.startswith("/") or not isinstance(line, int) or not isinstance(column, int):
        return None
    return Place(file, line, column)


def _text(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable() else ""


def _default(value: object) -> Plain | None:
    if isinstance(value, str):
        return value if len(value) <= _MAX_TEXT and value.isprintable() else None
    return value if isinstance(value, bool | int | float) else None
