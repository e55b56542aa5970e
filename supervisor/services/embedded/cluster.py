"""Making a Postgres data folder, once: whole or not there, whenever it is interrupted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.secret import Secret
from supervisor.process.child import Command, Identity, RunProgram
from supervisor.services.binaries import PostgresBinaries
from supervisor.services.embedded.access import give_tree, has_account, named_identity, owner_of
from supervisor.store.files import make_folder, sync_folder

SUPERUSER = "postgres"
_STDIN = "/proc/self/fd/0"
_RESERVED = frozenset({SUPERUSER, "template0", "template1", "public", "none"})
_LOCALES = ("C.UTF-8", "C")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A data folder to be: its role and database are both `owner`, made with `password`.

    `identity` is whom the files belong to in the end (None: ourselves).
    """

    data: Path
    owner: str
    password: Secret
    superuser_password: Secret
    identity: Identity | None
    env: Mapping[str, str]


async def make_cluster(cluster: Cluster, binaries: PostgresBinaries, run: RunProgram) -> None:
    """initdb, role, database, and one sync of it all in a folder beside it, which then gets its name.

    A half-made folder of an earlier try is removed. Cancelling leaves such a one. Passwords travel by an anonymous
    file on stdin: none is in an argument, in the environment or on disk. No server listens meanwhile.
    """
    require_usable_name(cluster.owner)
    maker = named_identity(cluster.identity)
    _require_account(maker)
    fresh = cluster.data.with_name(f"{cluster.data.name}.new")
    await anyio.to_thread.run_sync(_remove, fresh)
    make_folder(fresh, owner=owner_of(maker))
    tools = _Tools(binaries, run, maker, cluster.env, fresh)
    await tools.initdb(cluster.superuser_password)
    await tools.single_user(owner_sql(cluster.owner, cluster.password))
    await tools.sync()
    if cluster.identity != maker and cluster.identity is not None:
        await anyio.to_thread.run_sync(give_tree, fresh, (cluster.identity.uid, cluster.identity.gid))
        await anyio.to_thread.run_sync(os.sync)
    _put_in_place(fresh, cluster.data)


def require_usable_name(name: str) -> None:
    """Raises ConfigurationError for a stack name that Postgres keeps for itself."""
    if name in _RESERVED or name.startswith("pg_"):
        raise ConfigurationError(
            f"cannot make a database named {name!r}: Postgres keeps that name for itself; "
            f"choose another with SUPERVISOR_STACK"
        )


def owner_sql(name: str, password: Secret) -> str:
    """What makes the role and its database; `postgres -j` ends a statement at a semicolon and an empty line."""
    role = '"' + name.replace('"', '""') + '"'
    quoted = "'" + password.reveal().replace("'", "''") + "'"
    statements = (
        f"CREATE ROLE {role} LOGIN PASSWORD {quoted}",
        f"CREATE DATABASE {role} OWNER {role}",
        f"REVOKE CONNECT, TEMPORARY ON DATABASE {role} FROM PUBLIC",
    )
    return "".join(f"{statement};\n\n" for statement in statements)


@dataclass(frozen=True)
class _Tools:
    """Postgres' own programs, run on the folder in the making."""

    binaries: PostgresBinaries
    run: RunProgram
    maker: Identity | None
    env: Mapping[str, str]
    folder: Path

    async def initdb(self, superuser_password: Secret) -> None:
        """The first locale this system has is taken; both sort by code point, so indexes survive a change of libc."""
        for locale in _LOCALES:
            arguments = [f"--username={SUPERUSER}", f"--pwfile={_STDIN}", "--encoding=UTF8", f"--locale={locale}"]
            arguments += ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--data-checksums", "--no-sync"]
            status, output = await self._run(self.binaries.initdb, arguments, stdin=superuser_password.reveal() + "\n")
            if status == 0:
                return
            if "invalid locale" not in output:
                break
        raise self._failed("initdb", status, output)

    async def single_user(self, sql: str) -> None:
        """Run SQL without a server. fsync is off, as `sync` follows; a failing statement is not shown: it has secrets.

        The error itself still is.
        """
        arguments = ["--single", "-F", "-j", "-c", "exit_on_error=true", "-c", "log_min_error_statement=panic"]
        status, output = await self._run(self.binaries.postgres, arguments, stdin=sql, last=["postgres"])
        if status != 0:
            raise self._failed("postgres --single", status, output)

    async def sync(self) -> None:
        """Make all of it durable in one pass: a third of the time of syncing at each step."""
        status, output = await self._run(self.binaries.initdb, ["--sync-only"])
        if status != 0:
            raise self._failed("initdb --sync-only", status, output)

    async def _run(
        self, program: Path, arguments: Sequence[str], *, stdin: str = "", last: Sequence[str] = ()
    ) -> tuple[int, str]:
        with anonymous_file(stdin) as descriptor:
            command = Command(
                name=f"postgres {program.name}",
                argv=[str(program), *arguments, "-D", str(self.folder), *last],
                env=self.env,
                cwd="/",
                identity=self.maker,
                umask=0o077,
                stdin=descriptor,
            )
            return await self.run(command)

    def _failed(self, what: str, status: int, output: str) -> ConfigurationError:
        return ConfigurationError(
            f"cannot make the Postgres data folder in {str(self.folder.parent)!r}: {what} ended with status {status}; "
            f"its last words were:\n{output.strip() or '(none)'}"
        )


@contextmanager
def anonymous_file(text: str) -> Iterator[int]:
    """A descriptor to a file in memory that has no name, at its start; closed at the end of the block."""
    descriptor = os.memfd_create("stdin", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _require_account(maker: Identity | None) -> None:
    if maker is None and not has_account(os.geteuid()):
        raise PrivilegeError(
            f"cannot make the Postgres data folder: uid {os.geteuid()} has no entry in /etc/passwd, which initdb "
            f"insists on; add one to the image, run as another user, or use an external one with DATABASE_URL"
        )


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _put_in_place(fresh: Path, data: Path) -> None:
    try:
        fresh.rename(data)
    except OSError as error:
        raise ConfigurationError(
            f"cannot put the Postgres data folder at {str(data)!r}: {error.strerror}; it must be absent or an empty "
            f"folder, and no mount of its own (mount the folder above it)"
        ) from error
    sync_folder(data.parent)
