"""wrk flat out, a closed loop: as many requests as the connections carry. Its figures read from what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from types import TracebackType

from tests.load.report import Summary

_MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
_KINDS = {
    "connect": "not connected",
    "read": "reset or closed before the answer",
    "write": "refused or reset",  # a refused connection is told by the first write; it is tried again at once
    "timeout": "timeout",
}


def is_installed() -> bool:
    """Whether there is one."""
    return shutil.which("wrk") is not None


class Wrk:
    """A running wrk; leaving the `with` ends it."""

    def __init__(self, url: str, *, seconds: float, connections: int = 50, limit_seconds: float = 10.0) -> None:
        self._seconds = seconds + limit_seconds
        self._popen = subprocess.Popen(
            [
                "wrk",
                "-t1",
                f"-c{connections}",
                f"-d{max(1, round(seconds))}s",
                f"--timeout={max(1, round(limit_seconds))}s",
                "--latency",
                url,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Wrk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.kill()
        self._popen.communicate(timeout=30)

    def summary(self) -> Summary:
        """Wait for its end."""
        text, _ = self._popen.communicate(timeout=self._seconds + 30)
        return parse(text)


def parse(text: str) -> Summary:
    """wrk's output as figures. ValueError when it is none.

    wrk counts an answer that is no 2xx or 3xx as a request too, and a request that failed not at all.
    """
    total = re.search(r"(\d+) requests in ", text)
    if not total:
        raise ValueError(f"cannot read wrk's output: no count of requests in {text[-300:]!r}")
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    counts = dict(zip(_KINDS.values(), map(int, errors.groups()), strict=True)) if errors else {}
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        counts["status not 2xx"] = int(bad[1])
    failures = {kind: count for kind, count in counts.items() if count}
    lost = sum(failures.values()) - failures.get("status not 2xx", 0)
    return Summary(
        sent=int(total[1]) + lost,
        answered=int(total[1]) - failures.get("status not 2xx", 0),
        failures=failures,
        failures_by_method={"GET": failures} if failures else {},
        longest_ms=_duration(re.search(r"Latency +\S+ +\S+ +([\d.]+)(us|ms|s|m)\b", text)),
        p50_ms=_duration(re.search(r"\b50% +([\d.]+)(us|ms|s|m)\b", text)),
        p99_ms=_duration(re.search(r"\b99% +([\d.]+)(us|ms|s|m)\b", text)),
    )


def _duration(found: re.Match[str] | None) -> float:
    return float(found[1]) * _MILLISECONDS[found[2]] if found else 0.0
