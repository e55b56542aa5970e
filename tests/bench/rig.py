"""Processes under measurement: started in a folder and on ports of their own, waited for with a limit, ended by pid."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.bench import procfs

PYTHON = sys.executable
BIN = Path(sys.executable).parent
PROGRAMS = Path(__file__).parent / "programs"
REPOSITORY = Path(__file__).resolve().parents[2]
NOTES = REPOSITORY / "examples" / "notes"
SUPERVISOR = [PYTHON, "-m", "supervisor"]
IMPORTS = {"PYTHONPATH": str(REPOSITORY)}
"""This very tree is measured, also where another is installed. Not for others: supervisord's package has our name."""
UNSHARE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", "--kill-child"]
POLL_SECONDS = 0.002
STOP_SECONDS = 30.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

Entry = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    quick: bool
    rounds: int = 0
    """Of those benchmarks that take minutes a round; 0: as many as they want."""
    full: bool = False
    """Whether what takes many minutes is measured too."""

    def runs(self, full: int, quick: int = 2) -> int:
        """How often."""
        return quick if self.quick else full

    def say(self, text: str) -> None:
        """Progress, for whoever waits."""
        print(f"  .. {text}", file=sys.stderr, flush=True)


def missing(*commands: str) -> bool:
    """Whether one of the commands is not installed here: then the comparison is left out."""
    return any(shutil.which(command) is None for command in commands)


def wait_until(check: Callable[[], Any], *, what: str, limit_seconds: float = 30, poll: float = POLL_SECONDS) -> Any:
    """Poll until `check` gives something true and give that; TimeoutError names `what`."""
    end = time.monotonic() + limit_seconds
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() >= end:
            raise TimeoutError(f"{what}: not within {limit_seconds:g} s")
        if poll:
            time.sleep(poll)


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A folder of one's own that other users may pass through, as Postgres does under root."""
    made = Path(tempfile.mkdtemp(prefix="bench-"))
    made.chmod(0o755)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without settings of the supervisor, and with this Python first on the PATH."""
    ours = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")}
    return {**ours, "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}", **(extra or {})}


def adopt(*, orphans: bool = True) -> None:
    """What a process under measurement leaves behind comes to us, to be ended by `sweep`."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(orphans), 0, 0, 0)


@contextlib.contextmanager
def not_adopting() -> Iterator[None]:
    """What is left behind in here stays with the machine, as a server that others use does."""
    adopt(orphans=False)
    try:
        yield
    finally:
        adopt()


def sweep() -> int:
    """Kill and reap what is left below us; how many were still alive."""
    alive = 0
    deadline = time.monotonic() + 10
    while (left := procfs.children("self")) and time.monotonic() < deadline:
        for pid in left:
            alive += procfs.status(pid).get("State", "Z")[0] != "Z"
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    return alive


class Started:
    """A process of ours; leaving the `with` stops it, and kills it when it does not stop."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as out, log.with_suffix(".stderr").open("ab") as errors:
            self.started_at = time.time()
            self.popen = subprocess.Popen(
                list(argv),
                env=environment() if env is None else dict(env),
                cwd=cwd or log.parent,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
            )
        self.pid = self.popen.pid

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Ask it to end, and see that it does."""
        if self.popen.poll() is None:
            self.popen.send_signal(self._stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.popen.kill()
        self.popen.wait(10)

    def explain(self) -> str:
        """Its last words."""
        words = self.log.read_text(errors="replace") + self.log.with_suffix(".stderr").read_text(errors="replace")
        return words[-1500:]


class Log:
    """The JSON lines of a supervisor's log, read as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""
        self.entries: list[Entry] = []

    def read(self) -> list[Entry]:
        """Every entry so far."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        self._offset += len(text)
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                self.entries.append(json.loads(line))
        return self.entries

    def find(self, event: str, after: int = 0, **values: object) -> Entry | None:
        """The first entry from number `after` on with these values."""
        for entry in self.read()[after:]:
            if entry.get("event") == event and all(entry.get(key) == value for key, value in values.items()):
                return entry
        return None

    def last(self, event: str, **values: object) -> Entry | None:
        """The last such entry."""
        found = [
            entry
            for entry in self.read()
            if entry.get("event") == event and all(entry.get(key) == value for key, value in values.items())
        ]
        return found[-1] if found else None


def at(entry: Entry) -> float:
    """When an entry was published: seconds of wall time, cut to milliseconds."""
    return datetime.fromisoformat(entry["at"]).timestamp()


class Supervisor(Started):
    """A supervisor under measurement, its state in `home/state`, its log in JSON."""

    def __init__(
        self,
        home: Path,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
        python: Sequence[str] = SUPERVISOR,
    ) -> None:
        self.home = home
        log = home / f"log-{time.monotonic_ns()}"
        env = environment(
            {
                **IMPORTS,
                "SUPERVISOR_STATE_DIR": str(home / "state"),
                "SUPERVISOR_RUNTIME_DIR": str(home / "run"),
                "SUPERVISOR_LOG_FORMAT": "json",
                **(settings or {}),
            }
        )
        super().__init__([*prefix, *python, "run", *arguments], log=log, env=env, cwd=home)
        self.events = Log(log)
        self.socket = home / "run" / "control.sock"

    def __enter__(self) -> Supervisor:
        return self

    def wait(self, event: str, *, limit_seconds: float = 60, after: int = 0, **values: object) -> Entry:
        """Wait for an entry of its log."""

        def found() -> Entry | None:
            entry = self.events.find(event, after, **values)
            if entry is None and self.popen.poll() is not None:
                raise RuntimeError(f"the supervisor ended with {self.popen.returncode}: {self.explain()}")
            return entry

        entry: Entry = wait_until(found, what=f"{event} {values}", limit_seconds=limit_seconds)
        return entry

    def booted(self, limit_seconds: float = 120) -> Entry:
        """Wait for the end of the boot."""
        return self.wait("boot.finished", limit_seconds=limit_seconds)


@dataclass(frozen=True)
class Ports:
    """The ports of one stack."""

    app: int
    http: int
    https: int

    @classmethod
    def choose(cls) -> Ports:
        """Three that are free now."""
        return cls(free_port(), free_port(), free_port())

    def arguments(self) -> list[str]:
        """For `supervisor run`."""
        return ["--port", str(self.app), "--set", f"http_port={self.http}", "--set", f"https_port={self.https}"]


def notes_stack(home: Path, ports: Ports, **more: Any) -> Supervisor:
    """The whole stack with the example app, in a copy of its own."""
    app = home / "notes"
    if not app.exists():
        shutil.copytree(NOTES, app, ignore=shutil.ignore_patterns("__pycache__"))
    config = ["--mode", "embedded", "--config", str(app / "supervisor.toml")]
    return Supervisor(home, *config, *ports.arguments(), **more)


def alone(home: Path, port: int, argv: Sequence[str], **more: Any) -> Supervisor:
    """One app under `run --no-services`."""
    return Supervisor(home, "--no-services", "--app-dir", str(home), "--port", str(port), "--", *argv, **more)


def alone_services(home: Path, *services: str) -> Supervisor:
    """Some services of the stack, and an app that is only a port."""
    port = free_port()
    chosen = f"services={','.join(services)}"
    app = [PYTHON, "-I", "-S", str(PROGRAMS / "app.py")]
    return Supervisor(
        home, "--mode", "embedded", "--app-dir", str(home), "--port", str(port), "--set", chosen, "--", *app
    )
