"""A stack of two apps that use both services, or of one, with all that is secret in it at hand."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.commands.secrets_kept import Secrets
from tests.e2e.conftest import Make
from tests.e2e.harness import Supervisor, free_port, request

HERE = Path(__file__).parent
Started = Callable[..., "Stack"]
_TOP = 'mode = "embedded"\nservices = "postgres,redis"\nbake_seconds = 0.2\nstack = "rot"\n'


class Stack:
    """`api` is what is rotated; `other` only lives beside it. With `alone` there is one app, without tables."""

    def __init__(self, make: Make, folder: Path, *, alone: bool = False, overlap: bool = True) -> None:
        self.app_dir = folder / "api"
        self.app_dir.mkdir()
        self.app_dir.chmod(0o755)
        shutil.copy(HERE / "opener.py", self.app_dir / "app.py")
        (self.app_dir / "migrations").mkdir()
        (self.app_dir / "migrations" / "0001_seen.sql").write_text("CREATE TABLE seen (at timestamptz DEFAULT now());")
        self.port = free_port()
        self.name = "app" if alone else "api"
        config = folder / "supervisor.toml"
        app = f'command = "{sys.executable} -S app.py"\nport = {self.port}\nmigrate_dir = "migrations"\n'
        app += "" if overlap else "overlap = false\n"
        config.write_text(self._alone(app) if alone else self._several(app))
        self.supervisor: Supervisor = make(environ={"SUPERVISOR_CONFIG": str(config)}, port=self.port)

    def _alone(self, app: str) -> str:
        return _TOP + app.replace("command", "app_command", 1) + f'app_dir = "{self.app_dir}"\n'

    def _several(self, app: str) -> str:
        shutil.copytree(self.app_dir, other := self.app_dir.with_name("other"))
        other.chmod(0o755)
        beside = app.replace(f"port = {self.port}", f"port = {free_port()}")
        return (
            f'{_TOP}[apps.api]\ndir = "api"\n{app}[apps.api.env]\noptional = {{ KEYS = "api:" }}\n'
            f"[apps.api.env.vars.SESSION_SECRET]\ngenerate = true\nmin_length = 32\n"
            f'[apps.other]\ndir = "other"\n{beside}'
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def serves(self) -> bool:
        return request(self.port, "/")[0] == 200

    def value(self, name: str) -> str:
        """Of a secret."""
        return Secrets(self.supervisor.state).value(name).reveal()

    def environ(self) -> dict[str, str]:
        """What the serving generation was given."""
        text = Path(f"/proc/{self.supervisor.pid_of(self.name)}/environ").read_text()
        return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)

    def left_pending(self) -> list[str]:
        return [path.name for path in (self.supervisor.state / "secrets").rglob("*.next")]


@pytest.fixture
def stack(make: Make, folder: Path) -> Started:
    def start(**options: bool) -> Stack:
        return Stack(make, folder, **options)

    return start
