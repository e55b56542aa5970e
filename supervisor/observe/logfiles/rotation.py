"""Which log file is rotated, what it is called then, and which of those are removed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIVE_HOURS = 24
_ROTATED = re.compile(r"(?P<source>.+)-(?P<at>\d{8}T\d{6}\.\d{6}Z)\.log(?:\.gz)?")
_STAMP = "%Y%m%dT%H%M%S.%fZ"
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]|^[.-]")


@dataclass(frozen=True, slots=True)
class Keeping:
    """What is kept of each source: rotated files up to `count` and not older than `max_days`.

    A live file is rotated before it is beyond `max_bytes`, and when it is a day old.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_days: float = 14
    count: int = 10

    def is_due(self, size_bytes: int, more_bytes: int, born: datetime, now: datetime) -> bool:
        """Whether a live file, begun at `born`, is rotated before `more_bytes` are added."""
        if not size_bytes:
            return False
        return size_bytes + more_bytes > self.max_bytes or now - born >= timedelta(hours=LIVE_HOURS)

    def expired(self, names: Iterable[str], source: str, now: datetime) -> list[str]:
        """Which of the rotated files of `source` go."""
        found = sorted(((at, name) for name in names if (at := rotated_at(name, source)) is not None), reverse=True)
        kept_stamps = sorted({at for at, _ in found}, reverse=True)[: self.count]
        oldest = now - timedelta(days=self.max_days)
        return [name for at, name in found if at not in kept_stamps or at < oldest]


def live_name(source: str) -> str:
    """The file that is written to; a source's name is never a path."""
    return f"{_UNSAFE.sub('_', source)}.log"


def rotated_name(source: str, at: datetime) -> str:
    """What it is called from `at` on."""
    return f"{_UNSAFE.sub('_', source)}-{at.astimezone(UTC).strftime(_STAMP)}.log"


def rotated_at(name: str, source: str | None = None) -> datetime | None:
    """When it was rotated; None for a file that is none of ours, or of another source."""
    match = _ROTATED.fullmatch(name)
    if match is None or (source is not None and match["source"] != _UNSAFE.sub("_", source)):
        return None
    return datetime.strptime(match["at"], _STAMP).replace(tzinfo=UTC)
