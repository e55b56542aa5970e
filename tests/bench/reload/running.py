"""The app under measurement in the hands of whoever runs it: what is told to it, and what it tells."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import procfs
from tests.bench.rig import environment, wait_until

BOOT_SECONDS = 1.0
SETTLED_SECONDS = 1.2  # s6 and supervisord take an end within the first second for a failed start
REPOSITORY = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Moment:
    """What one process of the app said: `started` or `up`, at monotonic `at`."""

    what: str
    pid: int
    version: int
    at: float


def app_environment(home: Path, port: int | None = None, *, boot_seconds: float = BOOT_SECONDS) -> dict[str, str]:
    """What the apps read; without a port where somebody else gives it."""
    values = {
        "APP_RELEASE": str(home / "release"),
        "APP_LIFE": str(home / "life"),
        "APP_BOOT_SECONDS": str(boot_seconds),
    }
    return values if port is None else {**values, "PORT": str(port)}


def peer_environment(home: Path, port: int, more: dict[str, str] | None = None) -> dict[str, str]:
    """For a process that runs the app."""
    return environment({**app_environment(home, port), **(more or {})})


def lay_out(home: Path) -> None:
    """The first release, good, and an empty record."""
    (home / "release").write_text("1\n")
    (home / "life").touch()
    (home / ".reload-trigger").touch()


class Running:
    """The app, run by a contender. `reload` asks for a reload the contender's own way and may return at once."""

    def __init__(self, home: Path, port: int, reload: Callable[[], object]) -> None:
        self.home = home
        self.port = port
        self.version = 1
        self._reload = reload

    def url(self, path: str = "/") -> str:
        """Of the public port."""
        return f"http://127.0.0.1:{self.port}{path}"

    def release(self, mode: str = "") -> float:
        """New code on disk, and the order to reload; when it was given."""
        self.version += 1
        new = self.home / "release.new"
        new.write_text(f"{self.version} {mode}\n")
        new.replace(self.home / "release")
        ordered = time.monotonic()
        self._reload()
        return ordered

    def moments(self) -> list[Moment]:
        """All that the app's processes said."""
        lines = (line.split() for line in (self.home / "life").read_text().splitlines())
        return [Moment(what, int(pid), int(version), float(at)) for what, pid, version, at in lines]

    def first(self, what: str, version: int) -> Moment | None:
        """The first process of a version that said so."""
        return next((one for one in self.moments() if one.what == what and one.version == version), None)

    def newest(self) -> Moment:
        """The process that came up last."""
        return [one for one in self.moments() if one.what == "up"][-1]

    def wait_healthy(self) -> None:
        """Until the public port answers well, and for as long as others take it for a failed start."""
        wait_until(self._is_healthy, what="the app's first answer", poll=0.02)
        time.sleep(SETTLED_SECONDS)

    def settle(self) -> None:
        """Until the newest version is up and no process of another is left, then as after a start."""
        wait_until(lambda: self.first("up", self.version), what=f"version {self.version}", poll=0.02)
        wait_until(self._is_alone, what="the old version's end", limit_seconds=60, poll=0.02)
        time.sleep(SETTLED_SECONDS)

    def _is_alone(self) -> bool:
        old = {one.pid for one in self.moments() if one.version != self.version}
        return not any(procfs.status(pid).get("State", "Z")[0] not in "ZX" for pid in old)

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.url("/api/health"), timeout=2) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> float:
        """kill -9 of the process that came up last; when."""
        pid = self.newest().pid
        at = time.monotonic()
        os.kill(pid, 9)
        return at
