"""Reads HTTP/1.1 answers from bytes. Pure; bounded by what the caller collects."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION_HEADER = "App-Version"
_VERSION = re.compile(rb"\r\n" + VERSION_HEADER.lower().encode() + rb":\s*(\d+)")
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)")
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*\bchunked")
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*\bclose")


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `version` is that of the app, where it names it; `keep`: the connection may be used again."""

    status: int
    body: bytes
    version: int | None
    keep: bool


def parse(data: bytes, *, ended: bool = False) -> Answer | None:
    """The answer at the start of `data`; None while it is not whole. ValueError when it is none.

    `ended`: nothing more comes, which completes an answer without a length.
    """
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    status = _status(head)
    if 100 <= status < 200:
        return parse(rest, ended=ended)
    fields = head.lower()
    body = _body(fields, rest, ended=ended)
    if body is None:
        return None
    version = _VERSION.search(fields)
    keep = head.startswith(b"HTTP/1.1") and not ended and not _CLOSE.search(fields)
    return Answer(status, body, int(version[1]) if version else None, keep)


def _status(head: bytes) -> int:
    if not head.startswith(b"HTTP/1.") or not head[9:12].isdigit():
        raise ValueError(f"no HTTP answer: {head[:40]!r}")
    return int(head[9:12])


def _body(fields: bytes, rest: bytes, *, ended: bool) -> bytes | None:
    if length := _LENGTH.search(fields):
        wanted = int(length[1])
        return rest[:wanted] if len(rest) >= wanted else None
    if _CHUNKED.search(fields):
        return _joined(rest)
    return rest if ended else None


def _joined(rest: bytes) -> bytes | None:
    """The chunks of a body; no trailers are expected."""
    body = b""
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        if not separator:
            return None
        size = int(line.partition(b";")[0], 16)
        if len(rest) < size + 2:
            return None
        if not size:
            return body
        body, rest = body + rest[:size], rest[size + 2 :]
