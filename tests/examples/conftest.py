"""The servers the examples need, and each example as an app against them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples.servers import EXAMPLES, App, Postgres, Redis

MIGRATIONS = {"notes": "migrations", "notes-node": "drizzle"}
_NOT_COPIED = shutil.ignore_patterns("node_modules", "__pycache__", ".reload-trigger")


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[Postgres]:
    server = Postgres()
    try:
        server.initialise()
        server.start()
        yield server
    finally:
        server.clean_up()


@pytest.fixture
def postgres(shared_postgres: Postgres) -> Iterator[Postgres]:
    """The shared server, which runs again after a test that stopped it."""
    yield shared_postgres
    if not shared_postgres.running:
        shared_postgres.start()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    server = Redis(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.clean_up()


@pytest.fixture(scope="session")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Node example's packages, installed once a session beside a copy of its lock file."""
    missing = [name for name in ("node", "npm") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found; apt-get install nodejs npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(EXAMPLES / "notes-node" / name, folder)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--omit=dev"]
    install = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    assert install.returncode == 0, install.stdout + install.stderr
    return folder / "node_modules"


@pytest.fixture(params=["notes", "notes-node"])
def example(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def folder(example: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A copy of the example that a test may change."""
    copy = tmp_path / example
    shutil.copytree(EXAMPLES / example, copy, ignore=_NOT_COPIED)
    if example == "notes-node":
        (copy / "node_modules").symlink_to(request.getfixturevalue("node_modules"))
    return copy


@pytest.fixture
def make_app(example: str, folder: Path, tmp_path: Path, postgres: Postgres, redis: Redis) -> Callable[[], App]:
    """Makes the app, not started, on a database of the test's own."""
    database_url = postgres.make_database(f"notes-{uuid.uuid4().hex[:12]}", folder / MIGRATIONS[example])
    argv = ["node", "app.js"] if example == "notes-node" else [sys.executable, "app.py"]
    return lambda: App(argv, folder, database_url, redis.url, tmp_path / "app.log")


@pytest.fixture
def app(make_app: Callable[[], App]) -> Iterator[App]:
    """The app, running and healthy."""
    with make_app() as running:
        running.wait_healthy()
        yield running
