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
from typing import Self

import pytest

from tests.e2e.harness import app_ports, free_port
from tests.examples.servers import Process, accepts, wait_until
from tests.examples.workspace_rig import with_free_ports

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
    """One `scripts/run`; what it starts ends with it."""

    checkout: Path
    folder: Path
    example: str
    uid: int | None = None
    port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    https_port: int = field(default_factory=free_port)
    host: str = "127.0.0.1"
    """What Traefik is asked for."""

    def __post_init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        ports = {"PORT": self.port, "SUPERVISOR_HTTP_PORT": self.http_port, "SUPERVISOR_HTTPS_PORT": self.https_port}
        # The system's Python first, as on a machine that has no other; the tests' own environment stays out of it.
        rest = [entry for entry in os.environ["PATH"].split(":") if entry != str(Path(sys.executable).parent)]
        self.env = inherited | {name: str(port) for name, port in ports.items()}
        self.env |= {"SUPERVISOR_APP_PORTS": app_ports()}
        self.env |= {"PATH": ":".join(["/usr/bin", "/bin", *rest]), "SUPERVISOR_RUNTIME_DIR": str(self.folder / "run")}
        self._argv = [str(self.checkout / "scripts" / "run"), "--example", self.example]

    def __enter__(self) -> Self:
        """Start it; returns once the app answers through Traefik too."""
        log = self.folder / "run.log"
        self.process = Process(self._argv, log=log, cwd=Path("/"), env=self.env, uid=self.uid)
        self.process.start()
        try:
            wait_until(lambda: self.serves(self.port), what="the app", limit_seconds=_INSTALL_SECONDS)
            wait_until(lambda: self.serves(self.http_port), what="the route through Traefik")
        except BaseException:
            self.process.clean_up(signal.SIGINT)
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.clean_up(signal.SIGINT)

    def interrupt(self) -> int:
        """Ctrl-C."""
        return self.process.end(signal.SIGINT, limit_seconds=30)

    def request(self, port: int, method: str, path: str, value: object = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            content = None if value is None else json.dumps(value)
            headers = {"Content-Type": "application/json", "Host": self.host}
            connection.request(method, path, content, headers)
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

    def serves(self, port: int) -> bool:
        assert self.process.running, self.output
        try:
            return self.request(port, "GET", "/api/health")[0] == 200
        except (OSError, http.client.HTTPException):
            return False


@pytest.mark.parametrize("example", ["notes", "notes-node"])
def test_a_second_run_finds_the_note_of_the_first(checkout: Path, tmp_path: Path, example: str) -> None:
    if example == "notes-node" and not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm not found; apt-get install nodejs npm")
    with Stack(checkout, tmp_path, example) as first:
        assert first.request(first.port, "POST", "/notes", {"body": "straight"})[0] == 201
        assert first.request(first.http_port, "POST", "/notes", {"body": "through Traefik"})[0] == 201
        shown = (f"127.0.0.1:{first.port}", f"127.0.0.1:{first.http_port}", str(checkout / ".state" / example))
        wait_until(lambda: all(text in first.output for text in shown), what=f"{shown} are shown")
        assert first.interrupt() == 0, first.output
    assert not accepts(first.port)
    assert not accepts(first.http_port)
    with Stack(checkout, tmp_path, example) as second:
        assert second.bodies() == ["through Traefik", "straight"]
        assert second.interrupt() == 0, second.output


def test_the_workspace_of_five_apps_comes_up(checkout: Path, tmp_path: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("node or npm not found; apt-get install nodejs npm")
    ports = with_free_ports(checkout / "examples" / "workspace" / "supervisor.toml")
    stack = Stack(checkout, tmp_path, "workspace", port=ports["web"], host="web.localhost")
    with stack:
        assert "0 notes are kept here" in stack.request(stack.http_port, "GET", "/")[1]
        wait_until(lambda: stack.serves(ports["admin"]), what="the app that is started last")
        assert "0 notes, 0 sessions" in stack.request(ports["admin"], "GET", "/")[1]
        assert stack.interrupt() == 0, stack.output


def test_hot_reload_brings_the_new_version_into_service(checkout: Path, tmp_path: Path) -> None:
    source = checkout / "examples" / "notes" / "VERSION"
    source.write_text("1.0.0\n")
    with Stack(checkout, tmp_path, "notes") as stack:
        assert stack.version() == "1.0.0"
        source.write_text("1.0.1\n")
        command = [str(checkout / "scripts" / "hot-reload")]
        reload = subprocess.run(command, env=stack.env, capture_output=True, text=True, timeout=60, check=False)
        assert reload.returncode == 0, reload.stdout + reload.stderr
        assert stack.version() == "1.0.1"


def test_hot_reload_passes_on_that_nothing_runs(checkout: Path, tmp_path: Path) -> None:
    env = {**os.environ, "SUPERVISOR_RUNTIME_DIR": str(tmp_path)}
    command = [str(checkout / "scripts" / "hot-reload")]
    reload = subprocess.run(command, env=env, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    assert reload.returncode == 69
    assert "cannot" in reload.stderr


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="e2e-user-"))
    os.chown(home, _NOBODY, _NOBODY)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@pytest.mark.skipif(os.geteuid() != 0, reason="without root, the other tests show the same")
def test_a_user_without_root_runs_it(checkout: Path, home_of_nobody: Path) -> None:
    stack = Stack(checkout, home_of_nobody, "notes", uid=_NOBODY)
    stack.env |= {"HOME": str(home_of_nobody), "SUPERVISOR_STATE_DIR": str(home_of_nobody / "state")}
    # A shell that root opened for the user may hand over root's PATH.
    closed = home_of_nobody / "closed"
    closed.mkdir(mode=0o700)
    stack.env["PATH"] = f"{stack.env['PATH']}:{closed}/bin"
    setup = subprocess.run([str(checkout / "scripts/setup")], env=stack.env, capture_output=True, text=True, check=True)
    python = Path(setup.stdout.strip()) / "bin" / "python"
    try:
        subprocess.run([python, "-c", ""], user=_NOBODY, group=_NOBODY, extra_groups=[], check=True)
    except PermissionError:
        pytest.skip("the Python behind the environment lies where other users cannot go")
    with stack:
        assert stack.request(stack.port, "POST", "/notes", {"body": "mine"})[0] == 201
        assert stack.process.popen is not None
        assert Path(f"/proc/{stack.process.popen.pid}").stat().st_uid == _NOBODY
        assert stack.interrupt() == 0, stack.output
