"""The five apps of examples/workspace, in a copy with ports of its own, and each asked as itself."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from tests.e2e.harness import Supervisor, free_port, request
from tests.examples.servers import EXAMPLES

PORTS = {"web": 3000, "api": 3001, "auth": 3002, "admin-auth": 3003, "admin": 3004}
"""As the example has them."""
_NOT_COPIED = shutil.ignore_patterns("node_modules", "__pycache__", ".reload-trigger", ".env.*")
_LEAST_SECRET = 32


def with_free_ports(config: Path) -> dict[str, int]:
    """Change them in the file; gives the new ones."""
    ports = {app: free_port() for app in PORTS}
    text = config.read_text()
    for app, port in PORTS.items():
        text = re.sub(rf"\b{port}\b", str(ports[app]), text)
    config.write_text(text)
    return ports


@dataclass
class Workspace:
    """`given` is what a user gives it."""

    folder: Path
    supervisor: Supervisor
    ports: dict[str, int]
    given: dict[str, str]

    @classmethod
    def make(cls, folder: Path) -> Workspace:
        """In `folder`, not started."""
        folder.chmod(0o755)  # Postgres runs as another user
        copy = folder / "workspace"
        shutil.copytree(EXAMPLES / "workspace", copy, ignore=_NOT_COPIED)
        ports = with_free_ports(copy / "supervisor.toml")
        given = {
            "INVITE_CODE": secrets.token_hex(16),
            "ADMIN_EMAIL": "ada@example.org",
            "ADMIN_PASSWORD": secrets.token_hex(16),
        }
        arguments = ["--mode", "embedded", "--config", str(copy / "supervisor.toml")]
        return cls(copy, Supervisor(folder, arguments, dict(given), port=ports["web"]), ports, given)

    def environ(self, app: str) -> dict[str, str]:
        """What the app was really given."""
        text = Path(f"/proc/{self.supervisor.pid_of(app)}/environ").read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    def ask(self, app: str, path: str, body: dict[str, Any] | None = None, token: str = "") -> tuple[int, Any]:
        """One request of JSON; status and answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else None
        status, text = request(self.ports[app], path, body=body, headers=headers)
        return status, json.loads(text)

    def sign_in(self, name: str) -> str:
        """A token of `auth`."""
        status, answer = self.ask("auth", "/sessions", {"name": name, "invite": self.given["INVITE_CODE"]})
        assert status == 201, answer
        return str(answer["token"])

    def sql(self, app: str, statement: str, *, database: str | None = None) -> str:
        """Asked as the app: the SQLSTATE with which Postgres refuses it, or the first value."""
        return asyncio.run(self._sql(app, statement, database))

    async def _sql(self, app: str, statement: str, database: str | None) -> str:
        try:
            connection = await asyncpg.connect(self.environ(app)["DATABASE_URL"], timeout=10, database=database)
            try:
                return str(await connection.fetchval(statement, timeout=10))
            finally:
                await connection.close()
        except asyncpg.PostgresError as error:
            return str(error.sqlstate)

    def secrets(self) -> set[str]:
        """All that is kept secret, and what was given: long words of every file below `secrets`."""
        found = {self.given["INVITE_CODE"], self.given["ADMIN_PASSWORD"]}
        for path in (self.supervisor.state / "secrets").rglob("*"):
            if path.is_file():
                found |= {word for word in re.split(r"[^A-Za-z0-9_-]", path.read_text()) if len(word) >= _LEAST_SECRET}
        return found


def command_lines() -> Iterator[str]:
    """Of every process that there is."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue
