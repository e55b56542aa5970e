"""Bytes to lines."""

from __future__ import annotations

from collections.abc import Callable

MAX_LINE_BYTES = 16 * 1024
AHEAD_BYTES = 4 * 1024

KeepWhole = Callable[[bytes, int], int]
"""Given a line and a place in it, the place or one before it where a cut goes through nothing that must stay whole."""


class Framer:
    """Cuts a byte stream into lines; a line beyond `MAX_LINE_BYTES` is delivered in pieces, so memory stays bounded.

    How the stream is chunked makes no difference, and no piece ends within a UTF-8 character, nor within what
    `keep_whole` knows: half a secret in each of two lines would be masked in neither. It sees 4 KiB beyond the cut.
    """

    def __init__(self, deliver: Callable[[str], None], keep_whole: KeepWhole | None = None) -> None:
        self._deliver = deliver
        self._keep_whole = keep_whole
        self._ahead = 0 if keep_whole is None else AHEAD_BYTES
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take the next bytes; every whole line is delivered before this returns."""
        *whole, rest = (self._rest + data).split(b"\n")
        for line in whole:
            self._deliver(_text(self._pieces(line.removesuffix(b"\r"))))
        # A CR at the end may belong to a line end still to come, so it does not make the line too long yet.
        held = b"\r" if rest.endswith(b"\r") else b""
        self._rest = self._pieces(rest.removesuffix(b"\r"), self._ahead) + held

    def close(self) -> None:
        """Deliver what stands without a newline."""
        if self._rest:
            self._deliver(_text(self._pieces(self._rest)))
            self._rest = b""

    def take_rest(self) -> bytes:
        """What stands without a newline, for whoever goes on with it."""
        rest, self._rest = self._rest, b""
        return rest

    def _pieces(self, line: bytes, ahead: int = 0) -> bytes:
        """Deliver pieces of `line` until what is left, which is given back, fits in one (and `ahead`)."""
        while len(line) > MAX_LINE_BYTES + ahead:
            cut = self._cut(line)
            self._deliver(_text(line[:cut]))
            line = line[cut:]
        return line

    def _cut(self, line: bytes) -> int:
        cut = _at_character(line)
        if self._keep_whole is not None:
            # Nothing before the cut at all: what must stay whole is longer than a line may be.
            cut = self._keep_whole(line[: MAX_LINE_BYTES + AHEAD_BYTES], cut) or cut
        return cut


def _at_character(line: bytes) -> int:
    """Where to cut an overlong line: at the limit, or up to three bytes before it to spare a character."""
    for cut in range(MAX_LINE_BYTES, MAX_LINE_BYTES - 4, -1):
        if line[cut] & 0xC0 != 0x80:  # not a continuation byte
            return cut
    return MAX_LINE_BYTES


def _text(line: bytes) -> str:
    return line.decode(errors="replace")
