"""What the child says, taken strictly: the archive it reads may have made it say anything. Pure."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass
from typing import TypeGuard

from supervisor.releases.unpack.limits import MAX_ENTRIES

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_MAX_INFO_CHARACTERS = 400_000  # 64 KiB in which each byte became `\\udcxx`
_MAX_REASON_CHARACTERS = 2_000
_MAX_NUMBER = 2**53
_LAST_WORDS = 5


@dataclass(frozen=True)
class Progress:
    """So far: bytes of files, and files."""

    bytes: int
    files: int


@dataclass(frozen=True)
class Made:
    """A tree as the child says it made it; believed only as far as it is compared."""

    entries: int
    bytes: int
    digest: str
    sha256: str


class Report:
    """Hears line by line. `broken` says, in words, that it is no child of ours any more; it is not heard further then.

    After the result there is nothing more to say. `max_lines` bounds all that is said.
    """

    def __init__(self, *, max_lines: int) -> None:
        self._lines_left = max_lines
        self._info = ""
        self._last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        self.progress = Progress(0, 0)
        self.made: Made | None = None
        self.reason = ""
        self.broken = ""

    @property
    def last_words(self) -> str:
        """The end of its standard error, for one that did not come to a result."""
        return " / ".join(self._last_words)

    def info(self) -> dict[str, object] | None:
        """The record beside the tree. Raises ValueError or RecursionError where it is no JSON object."""
        if not self._info:
            return None
        values = json.loads(self._info)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
        return values

    def hear(self, stream: str, text: str) -> None:
        """Take one line of its output."""
        if self.broken:
            return
        self._lines_left -= 1
        if self._lines_left < 0:
            self.broken = "it says too much"
        elif stream == "stderr":
            self._last_words.append(printable(text)[:200])
        elif self.made is not None or self.reason:
            self.broken = "it goes on after its result"
        else:
            self._take(text)

    def _take(self, text: str) -> None:
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if not (isinstance(values, dict) and self._understand(values)):
            self.broken = f"it says {printable(text)[:80]!r}"

    def _understand(self, values: dict[str, object]) -> bool:
        match values:
            case {"result": "ok", "entries": made_entries, "bytes": made_bytes, "digest": digest, "sha256": sha256}:
                return self._done(made_entries, made_bytes, digest, sha256)
            case {"result": "refused", "reason": str(reason)}:
                self.reason = printable(reason)[:_MAX_REASON_CHARACTERS]
                return reason.startswith("cannot ")
            case {"bytes": made, "files": files}:
                return self._progressed(made, files)
            case {"info": str(piece)}:
                self._info += piece
                return len(self._info) <= _MAX_INFO_CHARACTERS
        return False

    def _done(self, entries: object, made: object, digest: object, sha256: object) -> bool:
        if not (_is_count(entries) and _is_count(made) and _is_digest(digest) and _is_digest(sha256)):
            return False
        if entries > MAX_ENTRIES:
            return False
        self.made = Made(entries, made, digest, sha256)
        return True

    def _progressed(self, made: object, files: object) -> bool:
        if not (_is_count(made) and _is_count(files)):
            return False
        self.progress = Progress(made, files)
        return True


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _MAX_NUMBER


def _is_digest(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _DIGEST.match(value) is not None


def printable(text: str) -> str:
    """Without what would move a cursor or break a log."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
