"""What each of the apps does, here for those in Python.

The file named in APP_RELEASE holds a number and, for a broken release, a word: `exit` (exits 1 while it starts),
`deaf` (never gets to listen), `500s`, `slow` (answers after 5 s), `turns` (good for 3 s, then 500s). It is read at the
start, so new code on disk is another content of it. The start takes APP_BOOT_SECONDS, an answer APP_WORK_MS, that of
/sleep/MS as long as it says. Each answer names the number in App-Version; a POST gets its own body back. TERM ends it
at once, whatever is in flight. To the file in APP_LIFE it adds `started` and `up`, with the pid, the number and the
monotonic time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

GOOD_SECONDS = 3.0
SLOW_SECONDS = 5.0


@dataclass(frozen=True)
class Release:
    """The code that runs."""

    version: int
    mode: str
    up_at: float

    def status(self) -> int:
        """Of an answer now."""
        has_turned = self.mode == "turns" and time.monotonic() - self.up_at > GOOD_SECONDS
        return 500 if self.mode == "500s" or has_turned else 200

    def work_seconds(self, path: str) -> float:
        """How long an answer takes."""
        if self.mode == "slow":
            return SLOW_SECONDS
        if path.startswith("/sleep/"):
            return int(path.removeprefix("/sleep/")) / 1000
        return float(os.environ.get("APP_WORK_MS", "3")) / 1000


def boot() -> Release:
    """Take as long as a start takes; broken releases go no further."""
    version, _, mode = Path(os.environ["APP_RELEASE"]).read_text().strip().partition(" ")
    _tell("started", int(version))
    time.sleep(float(os.environ.get("APP_BOOT_SECONDS", "1.0")))
    if mode == "exit":
        sys.exit(1)
    while mode == "deaf":
        signal.pause()
    _tell("up", int(version))
    return Release(int(version), mode, time.monotonic())


def _tell(what: str, version: int) -> None:
    with Path(os.environ["APP_LIFE"]).open("a") as file:
        file.write(f"{what} {os.getpid()} {version} {time.monotonic()!r}\n")
