"""pg_dump and pg_restore as children of ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from supervisor.core.errors import SupervisorError
from supervisor.core.secret import Secret
from supervisor.process.child import Command, RunProgram
from supervisor.services.dump.dump import tables_listed
from supervisor.services.dump.login import login_of
from supervisor.services.dump.observe import Facts


@dataclass(frozen=True)
class LocalPrograms:
    """See `Programs`. `find` gives the folder of the programs for a server of that major version, or raises why not.

    They run as ourselves, not as the server's user: whoever has the user of a process can read the password in its
    environment, and the app may be that one.
    """

    dsn: Secret
    find: Callable[[int], Path]
    run: RunProgram
    path: str

    async def dump(self, facts: Facts, to: Path) -> None:
        """See `Programs`."""
        login = login_of(self.dsn)
        program = await self._program("pg_dump", facts.major)
        argv = [program, "--format=custom", "--no-password", f"--snapshot={facts.snapshot}"]
        argv += [f"--file={to}", f"--dbname={login.url}"]
        await self._run("pg_dump", argv, login.environ, "see why, or build the release without `migrations.snapshot`")

    async def tables(self, facts: Facts, dump: Path) -> int:
        """See `Programs`."""
        listing = dump.with_suffix(".list")
        try:
            program = await self._program("pg_restore", facts.major)
            argv = [program, "--list", f"--file={listing}", str(dump)]
            await self._run("pg_restore", argv, {}, "what was saved cannot be read again; try it once more")
            return await anyio.to_thread.run_sync(_count, listing)
        finally:
            listing.unlink(missing_ok=True)

    async def _program(self, name: str, major: int) -> str:
        folder = await anyio.to_thread.run_sync(self.find, major)
        if not os.access(folder / name, os.X_OK):
            raise SupervisorError(
                f"cannot save the database: there is no {name} in {str(folder)!r}, beside the server; install "
                f"Postgres' client programs of the same version, or build the release without `migrations.snapshot`"
            )
        return str(folder / name)

    async def _run(self, name: str, argv: Sequence[str], environ: dict[str, str], mend: str) -> None:
        command = Command(name=name, argv=argv, env={"PATH": self.path, **environ}, cwd="/", umask=0o077)
        status, said = await self.run(command)
        if status != 0:
            said = said.strip() or "it said nothing"
            raise SupervisorError(f"cannot save the database: {name} ended with status {status}: {said}; {mend}")


def _count(listing: Path) -> int:
    with listing.open(encoding="utf-8", errors="replace") as lines:
        return tables_listed(lines)
