"""Starts a whole supervisor as a user would, and watches it from outside: its log, its ports, its exit code."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).parent.parent.parent
NOTES = REPO / "examples" / "notes"
LIMIT = 60.0


def _worker() -> int:
    return int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


_SHARES = 8
_turns = itertools.count(secrets.randbelow(600))


def free_port() -> int:
    """A port free now, given once, and to this process of the tests alone.

    Below those that supervisors choose by themselves, and those of outgoing connections, so that none takes it by
    chance before it is used.
    """
    while True:
        port = 10000 + (next(_turns) * _SHARES + _worker() % _SHARES) % 5000
        with contextlib.suppress(OSError), socket.create_server(("0.0.0.0", port)):
            return port


def app_ports() -> str:
    """Private ports for the generations of one supervisor, apart from those of the tests beside it.

    Each supervisor gives them in turn: of two that begin at the same port, an app of one finds it taken.
    """
    low = 30000 + 900 * (_worker() % 3) + 20 * secrets.randbelow(36)
    return f"{low}-{low + 199}"


def wait_until(what: str, condition: Callable[[], Any], *, limit: float = LIMIT) -> Any:
    """Ask every 10 ms until `condition` is true; gives its value."""
    deadline = time.monotonic() + limit
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.01)


def request(
    port: int, path: str, *, body: dict[str, Any] | None = None, headers: dict[str, str] | None = None, limit: float = 5
) -> tuple[int, str]:
    """One HTTP request; (status, text). Raises OSError where nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    made = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data, headers=headers or {})
    if body is not None:
        made.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(made, timeout=limit) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except urllib.error.URLError as error:
        raise OSError(str(error.reason)) from error


def answers(port: int, path: str = "/") -> int | None:
    """The status, or None where nobody answers."""
    with contextlib.suppress(OSError):
        return request(port, path)[0]
    return None


@dataclass
class Supervisor:
    """One `supervisor run`; may be started several times. Ended by `stop` or `kill`, by the fixture at the latest."""

    folder: Path
    arguments: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    app_ports: str = field(default_factory=app_ports)
    user: str | None = None
    prefix: list[str] = field(default_factory=list)
    """What the command is run by, such as `unshare`; its only child is then the supervisor."""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def log_path(self) -> Path:
        return self.folder / f"log-{self.starts}"

    def env(self) -> dict[str, str]:
        base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        base["PATH"] = f"{Path(sys.executable).parent}:{base['PATH']}"
        return {
            **base,
            "SUPERVISOR_STATE_DIR": str(self.state),
            "SUPERVISOR_RUNTIME_DIR": str(self.folder / "run"),
            "SUPERVISOR_HTTP_PORT": str(self.http_port),
            "SUPERVISOR_HTTPS_PORT": str(self.https_port),
            "PORT": str(self.port),
            "SUPERVISOR_APP_PORTS": self.app_ports,
            **self.environ,
        }

    def start(self) -> Supervisor:
        """Start it and return at once."""
        self.starts += 1
        ours = [sys.executable, "-m", "supervisor", "run", "--log-format", "json", *self.arguments]
        command = [*self.prefix, *ours]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self.env(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=REPO,
                start_new_session=True,
                user=self.user,
            )
        return self

    def boot(self) -> Supervisor:
        """Start it and wait until it says running."""
        self.start()
        self.wait_event("supervisor.state", state="running")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def events(self, name: str = "", **fields: Any) -> list[dict[str, Any]]:
        """Events of the log that have this name and these fields."""
        found = []
        # Asked again and again while a test waits: only what may be meant is parsed.
        for line in (each for each in self.log().splitlines() if name in each):
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if name in ("", event.get("event")) and all(event.get(key) == value for key, value in fields.items()):
                    found.append(event)
        return found

    def output(self, source: str) -> str:
        """What a child wrote, as the log has it."""
        return "\n".join(event["msg"] for event in self.events("output", source=source))

    def wait_event(self, name: str, *, after: int = 0, limit: float = LIMIT, **fields: Any) -> dict[str, Any]:
        """The first event of this kind beyond the first `after` ones."""

        def found() -> dict[str, Any] | None:
            events = self.events(name, **fields)
            if len(events) > after:
                return events[after]
            assert self.process is not None
            if self.process.poll() is not None:
                events = self.events(name, **fields)
                assert len(events) > after, (
                    f"ended with {self.process.returncode} before {name} {fields}:\n{self.log()}"
                )
                return events[after]
            return None

        result: dict[str, Any] = wait_until(f"{name} {fields} in\n{self.log()[-6000:]}", found, limit=limit)
        return result

    def send(self, number: int) -> None:
        os.kill(self.own_pid, number)

    @property
    def own_pid(self) -> int:
        """The supervisor's pid as we see it, behind a prefix too."""
        if not self.prefix:
            return self.pid
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return int(wait_until("the supervisor is forked", lambda: children.read_text().split())[0])

    def wait(self, limit: float = LIMIT) -> int:
        """Its exit code."""
        assert self.process is not None
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it did not end within {limit:g} s:\n{self.log()[-6000:]}") from None

    def stop(self, number: int = signal.SIGTERM, limit: float = LIMIT) -> int:
        self.send(number)
        return self.wait(limit)

    def kill(self) -> None:
        """kill -9, children left behind."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def cli(self, *arguments: str, check: bool = False, limit: float = LIMIT) -> subprocess.CompletedProcess[str]:
        """`supervisor ARGUMENTS` against it."""
        return subprocess.run(
            [sys.executable, "-m", "supervisor", *arguments],
            env=self.env(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=check,
        )

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return status

    def pid_of(self, name: str) -> int:
        """The pid of a service or of the app's newest generation, as the log has it."""
        over = ("warm", "draining", "failed", "stopped")
        pids = [
            event["pid"]
            for event in self.events()
            if name in (event.get("service"), event.get("app"))
            and event.get("pid") is not None
            and not (event["event"] == "app.generation" and event["state"] in over)
        ]
        return int(pids[-1])

    def add_note(self, text: str) -> None:
        status, answer = request(self.port, "/notes", body={"body": text})
        assert status in (200, 201), answer

    def notes(self, port: int | None = None) -> list[str]:
        status, answer = request(port or self.port, "/notes")
        assert status == 200, answer
        return [note["body"] for note in json.loads(answer)["notes"]]

    def serves(self) -> bool:
        return answers(self.port, "/api/health") == 200

    def end_everything(self) -> None:
        """For the fixture: stop it, and end by kill -9 what a killed one left."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid in left_behind(self.state):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process is there and no zombie: who reaps the orphans of a killed one is the machine's business."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def left_behind(state: Path) -> list[int]:
    """Processes that this install spawned and that still run, by the marker in their environment or their record."""
    try:
        install = json.loads((state / "install.json").read_text())["uuid"]
    except (OSError, ValueError):
        return []
    found = set()
    entry = f"SUPERVISOR_SPAWN={install}/".encode()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if is_running(int(path.name)) and any(
                item.startswith(entry) for item in (path / "environ").read_bytes().split(b"\0")
            ):
                found.add(int(path.name))
    for record in (state / "spawned").glob("*.json"):
        with contextlib.suppress(OSError, ValueError):
            pid = json.loads(record.read_text())["pid"]
            if is_running(pid):
                found.add(pid)
    return sorted(found)


class RefusalCounter:
    """Asks a port over and over from a thread; `longest` is the longest stretch without an answer, in seconds."""

    def __init__(self, port: int, path: str) -> None:
        import threading

        self._port, self._path = port, path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.longest = 0.0
        self.answered = 0

    def __enter__(self) -> RefusalCounter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _ask(self) -> None:
        last = time.monotonic()
        while not self._stop.is_set():
            if answers(self._port, self._path) == 200:
                self.answered += 1
                self.longest = max(self.longest, time.monotonic() - last)
                last = time.monotonic()


def walk_text(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every small text file below a folder."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_size < 1_000_000:
            with contextlib.suppress(UnicodeDecodeError, OSError):
                yield path, path.read_text()
