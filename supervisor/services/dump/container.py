"""pg_dump and pg_restore inside the container of Postgres: the same version as the server, and no network between."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import anyio
import anyio.to_thread

from supervisor.core.errors import SupervisorError, UnreachableError
from supervisor.core.secret import Secret
from supervisor.engine import resources
from supervisor.services.dump.dump import tables_listed
from supervisor.services.dump.observe import Facts

_SOCKETS = "/var/run/postgresql"
_FOLDER = "/tmp"  # noqa: S108  (in the container; the file has the transaction's name)
_HEAD_BYTES = 64 * 1024 * 1024
"""What pg_restore lists stands at the head of a dump, so this much of a large one is sent back to be listed."""
_LIST_SECONDS = 60.0


class DumpEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def containers(self) -> resources.Containers: ...


@dataclass(frozen=True, kw_only=True)
class ContainerPrograms:
    """See `Programs`. `container` is the running one's id, None while none runs.

    They log in over the unix socket, which the official images trust; the password is for images that do not.
    """

    engine: DumpEngine
    container: Callable[[], str | None]
    role: str
    password: Secret
    limit_seconds: float

    async def dump(self, facts: Facts, to: Path) -> None:
        """See `Programs`. It comes piece by piece; past the limit it ends by itself, and with our connection."""
        argv = ["timeout", f"{self.limit_seconds:.0f}", "pg_dump", "--format=custom", "--no-password"]
        argv.append(f"--snapshot={facts.snapshot}")
        environ = {"PGHOST": _SOCKETS, "PGUSER": self.role, "PGDATABASE": self.role}
        environ |= {"PGPASSWORD": self.password.reveal(), "PGAPPNAME": "supervisor snapshot"}
        async with await anyio.open_file(to, "wb") as file:
            done = await self.engine.containers.exec_to(self._running(), argv, file.write, env=environ)
        self._check("pg_dump", done)

    async def tables(self, facts: Facts, dump: Path) -> int:
        """See `Programs`."""
        container, name = self._running(), f"supervisor-{dump.parent.name}.dump"
        sent = dump.with_suffix(".tar")
        try:
            await anyio.to_thread.run_sync(_pack_head, dump, name, sent)
            with closing(sent.open("rb")) as file:
                await self.engine.containers.put_archive(container, _FOLDER, file)
        finally:
            sent.unlink(missing_ok=True)
        try:
            done = await self._exec(container, ["pg_restore", "--list", f"{_FOLDER}/{name}"])
        finally:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LIST_SECONDS):
                await self._exec(container, ["rm", "-f", f"{_FOLDER}/{name}"])
        self._check("pg_restore", done)
        return tables_listed(done.stdout.decode(errors="replace").splitlines())

    async def _exec(self, container: str, argv: Sequence[str]) -> resources.ExecResult:
        return await self.engine.containers.exec(container, argv, timeout_seconds=_LIST_SECONDS)

    def _running(self) -> str:
        container = self.container()
        if container is None:
            raise UnreachableError("cannot save the database: the container of Postgres does not run; wait for it")
        return container

    def _check(self, name: str, done: resources.ExecResult) -> None:
        if done.exit_code == 0:
            return
        said = done.stderr.decode(errors="replace").strip().replace(self.password.reveal() or "\0", "***")
        raise SupervisorError(
            f"cannot save the database: {name} in the container of Postgres ended with status {done.exit_code}: "
            f"{said[-2000:] or 'it said nothing'}; see why, or build the release without `migrations.snapshot`"
        )


def _pack_head(dump: Path, name: str, to: Path) -> None:
    """A tar with one file, through the disk rather than through our memory."""
    with dump.open("rb") as file, tarfile.open(to, "w") as tar:
        head = tarfile.TarInfo(name)
        head.size = min(dump.stat().st_size, _HEAD_BYTES)
        head.mode = 0o600
        tar.addfile(head, file)
