"""How fast a source may print: a token bucket of lines and bytes. Pure; what is beyond it, `pump` drops."""

from __future__ import annotations

import sys
from dataclasses import dataclass

PAUSE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What is taken a second of one stream of a source; 0 is without a limit.

    A burst of `burst_seconds` of it is taken at once. Postgres, HAProxy or an app that logs each of 5,000 requests a
    second stay below the defaults; at them the log costs about a fifth of a core.
    """

    lines: int = 10_000
    bytes: int = 4 * 1024 * 1024
    burst_seconds: float = 1.0

    def __str__(self) -> str:
        lines = [f"{self.lines} lines"] if self.lines else []
        size = [f"{self.bytes / (1024 * 1024):g} MiB"] if self.bytes else []
        return f"{' or '.join(lines + size) or 'anything'} a second"


class Meter:
    """Once the bucket is dry it stays closed for a second, so that what is shown comes in pieces worth reading.

    `now` is monotonic seconds.
    """

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._filled = now
        self._lines, self._bytes = self._full()
        self.opens_at = now

    def is_open(self, now: float) -> bool:
        """Whether lines may be taken now."""
        if now < self.opens_at:
            return False
        self._fill(now)
        if self._is_dry():
            self.close(now)
            return False
        return True

    @property
    def lines_left(self) -> int:
        """How many lines it has, at least one while it is open."""
        return max(1, int(self._lines)) if self._rate.lines else sys.maxsize

    def charge(self, lines: int, size_bytes: int, now: float) -> None:
        """Count what was taken; more than there is closes it."""
        self._fill(now)
        self._lines -= lines
        self._bytes -= size_bytes
        if self._is_dry():
            self.close(now)

    def close(self, now: float) -> None:
        """More came than is left: what drips in meanwhile is for the next second."""
        self.opens_at = now + PAUSE_SECONDS

    def _full(self) -> tuple[float, float]:
        return self._rate.lines * self._rate.burst_seconds, self._rate.bytes * self._rate.burst_seconds

    def _fill(self, now: float) -> None:
        passed, self._filled = max(0.0, now - self._filled), now
        lines, size = self._full()
        self._lines = min(lines, self._lines + passed * self._rate.lines)
        self._bytes = min(size, self._bytes + passed * self._rate.bytes)

    def _is_dry(self) -> bool:
        lines, size = self._rate.lines and self._lines < 1, self._rate.bytes and self._bytes < 1
        return bool(lines or size)
