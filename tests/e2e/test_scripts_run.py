"""`scripts/run` as a new user meets it: a fresh copy of the checkout, nothing installed, one command."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.examples.servers import Process, accepts, free_port, wait_until

pytestmark = pytest.mark.servers

REPOSITORY = Path(__file__).resolve().parents[2]
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".state", ".*_cache", "__pycache__", "node_modules", "dist*")
_OURS = ("SUPERVISOR_", "APP_", "DOCKER_", "DATABASE_URL", "REDIS_URL", "MIGRATE_", "VIRTUAL_ENV", "PYTHON")
_INSTALL_SECONDS = 300
_NOBODY = 65534


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """A copy in a folder that everyone may enter (pytest's own are closed to others, so to Postgres under root)."""
    parent = Path(tempfile.mkdtemp(prefix="e2e-run-"))
    parent.chmod(0o755)
    try:
        shutil.copytree(REPOSITORY, parent / "checkout", ignore=_NOT_COPIED, symlinks=True)
        yield parent / "checkout"
    finally:
        shutil.rmtree(parent)


@dataclass
class Stack:
    """One `scripts/run`, in a process group of its own as under a shell."""

    checkout: Path
    folder: Path
    example: str
    uid: int | None = None
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)

    def __post_init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ports = {"PORT": self.port, "SUPERVISOR_HTTP_PORT": self.http_port, "SUPERVISOR_HTTPS_PORT": self.https_port}
        # The system's Python first, as on a machine that has no other; the tests' own environment stays out of it.
        rest = [entry for entry in os.environ["PATH"].split(":") if entry != str(Path(sys.executable).parent)]
        self.env = inherited | {name: str(port) for name, port in ports.items()}
        self.env |= {"PATH": ":".join(["/usr/bin", "/bin", *rest]), "SUPERVISOR_RUNTIME_DIR": str(self.folder / "run")}
        argv = ["setsid", "--wait", str(self.checkout / "scripts" / "run"), "--example", self.example]
        self.process = Process(argv[2:], log=self.folder / "run.log", cwd=Path("/"), env=self.env, uid=self.uid)

    def start(self) -> None:
        """Start it; returns once the app answers through Traefik too."""
        self.process.start()
        for name, port in (("the app", self.port), ("Traefik's route", self.http_port)):
            wait_until(lambda port=port: self._serves(port), what=name, limit_seconds=_INSTALL_SECONDS)  # type: ignore[misc]

    def interrupt(self) -> int:
        """Ctrl-C."""
        return self.process.end(signal.SIGINT, limit_seconds=30)

    def request(self, port: int, method: str, path: str, value: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            content = None if value is None else json.dumps(value)
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def bodies(self) -> list[str]:
        return [note["body"] for note in json.loads(self.request(self.port, "GET", "/notes")[1])["notes"]]

    def version(self) -> str:
        version: str = json.loads(self.request(self.port, "GET", "/api/health")[1])["version"]
        return version

    @property
    def output(self) -> str:
        return self.process.log.read_text()

    def _serves(self, port: int) -> bool:
        assert self.process.running, self.output
        try:
            return self.request(port, "GET", "/api/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False
