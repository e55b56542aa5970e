"""Postgres as a child of ours: its data folder, its command, its probe."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import anyio.to_thread

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.postgres import probe_postgres
from supervisor.probe.verdict import Verdict
from supervisor.process.account import lacking_rights
from supervisor.process.child import Command, KillMode, RunProgram
from supervisor.process.procfs import read_stat
from supervisor.services.binaries import PostgresBinaries, find_postgres, system_places
from supervisor.services.changing import probe_changing
from supervisor.services.dump.local import LocalPrograms
from supervisor.services.embedded.access import (
    POSTGRES_UID,
    blocked_path,
    give_tree,
    has_other_owner,
    identity_for,
    owner_of,
)
from supervisor.services.embedded.cluster import SUPERUSER, Cluster, make_cluster
from supervisor.services.ports import LOOPBACK, PortBook
from supervisor.services.spec import ServiceSpec
from supervisor.services.tenancy.session import url_for
from supervisor.store.files import make_folder
from supervisor.store.rotating import RotatingSecret
from supervisor.store.secrets import SecretFolder

NAME = "postgres"
APP_SECRET = "postgres-app"  # noqa: S105  (the name of a file)
SUPERUSER_SECRET = "postgres-superuser"  # noqa: S105
STOP_SECONDS = 60.0
_READ_ENTER = 0o5


class EmbeddedPostgres:
    """The Postgres of the stack: role and database are named after it, both reachable on loopback only.

    `<state>/postgres/data` is the data folder; `postgresql.conf` in it is the user's to tune. `environ` is our own
    environment, of which the server gets PATH and TZ. Nothing is done before `prepare`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path,
        secrets: SecretFolder,
        ports: PortBook,
        run: RunProgram,
        environ: Mapping[str, str],
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._ports = ports
        self._run = run
        self._path = environ.get("PATH", os.defpath)
        self._env = {"PATH": self._path} | {name: environ[name] for name in ("TZ",) if name in environ}
        self.data = state_dir / NAME / "data"
        self.identity = identity_for("postgres", POSTGRES_UID, our_uid=os.geteuid())

    @property
    def port(self) -> int:
        """Its loopback port. Raises ConfigurationError where the one asked for is taken."""
        return self._ports.port(NAME, self._settings.postgres_port)

    @property
    def dsn(self) -> Secret:
        """The app's own URL: its role, its database. Makes the password on first use."""
        return self._dsn_with(self._secrets.get_or_make(APP_SECRET))

    def _dsn_with(self, password: Secret) -> Secret:
        name = quote(self._settings.stack, safe="")
        return Secret(f"postgresql://{name}:{quote(password.reveal(), safe='')}@{LOOPBACK}:{self.port}/{name}")

    @property
    def record(self) -> RotatingSecret:
        """The password of the stack's own role, as it is kept."""
        return self._secrets.rotating(APP_SECRET)

    @property
    def superuser_record(self) -> RotatingSecret:
        """The superuser's."""
        return self._secrets.rotating(SUPERUSER_SECRET)

    @property
    def admin_dsn(self) -> Secret:
        """The same database for its superuser."""
        return url_for(self.dsn, role=SUPERUSER, password=self._secrets.get_or_make(SUPERUSER_SECRET))

    def spec(self) -> ServiceSpec:
        """What the orchestrator must know of it."""
        settings = self._settings
        return ServiceSpec(
            name=NAME,
            probe=self.probe,
            port=self.port,
            start_seconds=settings.postgres_start_seconds,
            recovery_seconds=settings.postgres_recovery_seconds,
            stop_seconds=STOP_SECONDS,
            optional=NAME in settings.optional_services,
            essential=NAME in settings.essential_services,
        )

    async def probe(self) -> Verdict:
        """One probe with the app's own credentials and database."""
        hint = (
            f"{str(self.data)!r} holds another password, or was made for another SUPERVISOR_STACK: bring back "
            f"{str(self._secrets.path(APP_SECRET))!r} from a backup, or log in as {SUPERUSER!r} (its password is in "
            f"{str(self._secrets.path(SUPERUSER_SECRET))!r}) and change the role"
        )

        async def ask(password: Secret) -> Verdict:
            return await probe_postgres(
                self._dsn_with(password),
                limit_seconds=self._settings.watch_timeout_seconds,
                password_hint=hint,
                identify=postmaster_of,
            )

        return await probe_changing(self.record, ask)

    async def prepare(self) -> Command:
        """See `Prepare`. The first time it makes the data folder (about a second); later it only checks."""
        make_folder(self.data.parent, mode=0o711)
        self._require_reachable()
        major = data_major(self.data)
        binaries = self._binaries(major)
        if major is None:
            cluster = Cluster(
                data=self.data,
                owner=self._settings.stack,
                password=self._secrets.get_or_make(APP_SECRET),
                superuser_password=self._secrets.get_or_make(SUPERUSER_SECRET),
                identity=self.identity,
                env=self._env,
            )
            await make_cluster(cluster, binaries, self._run)
        else:
            await self._take_over()
            drop_stale_pid_file(self.data)
        return self._command(binaries.postgres)

    def _binaries(self, major: int | None) -> PostgresBinaries:
        return find_postgres(
            self._settings.postgres_bin_dir,
            places=system_places(self._path),
            data_major=major,
            blocked=partial(blocked_path, identity=self.identity, leaf_mode=_READ_ENTER),
        )

    def dump_programs(self, run: RunProgram) -> LocalPrograms:
        """pg_dump and pg_restore of the installation that serves."""
        return LocalPrograms(
            self.dsn, find=lambda _: self._binaries(data_major(self.data)).folder, run=run, path=self._path
        )

    def _require_reachable(self) -> None:
        if self.identity is None and os.geteuid() == 0:
            raise PrivilegeError(
                f"cannot start Postgres: it does not run as root, and root lacks {', '.join(lacking_rights())} here to "
                f"run it as another; give the container these capabilities (--cap-add), or run it with --user"
            )
        reason = blocked_path(self.data.parent, self.identity)
        if reason:
            raise PrivilegeError(
                f"cannot start Postgres: {reason}; let others pass through it (chmod o+x), "
                f"or choose another state folder with SUPERVISOR_STATE_DIR"
            )

    async def _take_over(self) -> None:
        """An image may give the user `postgres` another uid than the one that made the data: as root that is mended."""
        wanted = owner_of(self.identity)
        ours = os.geteuid()
        if wanted is not None and has_other_owner(self.data, wanted):
            await anyio.to_thread.run_sync(give_tree, self.data, wanted)
        elif wanted is None and self._uid_of_data() != ours:
            raise PrivilegeError(
                f"cannot start Postgres: its data folder {str(self.data)!r} belongs to uid {self._uid_of_data()}, "
                f"we are uid {ours}; run as that user or as root, or choose another SUPERVISOR_STATE_DIR"
            )

    def _uid_of_data(self) -> int:
        return self.data.stat().st_uid

    def _command(self, postgres: Path) -> Command:
        """No secret in it. No unix socket: nothing to go stale, and no limit of 107 bytes for the state folder."""
        options = {
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
            "logging_collector": "off",
            "log_destination": "stderr",
        }
        argv = [str(postgres), "-D", str(self.data)]
        for key, value in options.items():
            argv += ["-c", f"{key}={value}"]
        return Command(
            name=NAME,
            argv=argv,
            env=self._env,
            cwd="/",
            identity=self.identity,
            umask=0o077,
            # Fast shutdown: sessions are ended and all is written down; TERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            kill_mode=KillMode.PROCESS,
        )


def postmaster_of(backend: int) -> int:
    """The server of a backend, its parent; the backend itself is gone once its connection is closed."""
    stat = read_stat(backend)
    return stat.ppid if stat is not None and stat.comm == NAME else backend


def data_major(data: Path) -> int | None:
    """The major version that made a data folder, None where there is none yet.

    Raises ConfigurationError for anything else in its place, PrivilegeError where it cannot be read.
    """
    version = data / "PG_VERSION"
    try:
        text = version.read_text(encoding="ascii").strip()
        return int(text.partition(".")[0])
    except FileNotFoundError:
        if data.is_dir() and any(data.iterdir()):
            raise ConfigurationError(
                f"cannot use {str(data)!r} as the Postgres data folder: it is not empty and has no PG_VERSION; "
                f"bring it back from a backup, or move it away to have a new one made"
            ) from None
        return None
    except NotADirectoryError:
        raise ConfigurationError(
            f"cannot use {str(data)!r} as the Postgres data folder: it is a file; move it away"
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"cannot read {str(version)!r}: it has no version in it; bring the data folder back from a backup"
        ) from None
    except OSError as error:
        raise PrivilegeError(f"cannot read {str(version)!r}: {error.strerror}; run as its owner or as root") from error


def drop_stale_pid_file(data: Path) -> None:
    """Remove a `postmaster.pid` whose pid is now something else's: after a kill -9 and a container's restart the same
    small numbers come again, and Postgres refuses to start when the process is of its own user.

    Everything Postgres can tell by itself is left to it. Raises ConfigurationError when a server is live on the data.
    """
    path = data / "postmaster.pid"
    try:
        pid = abs(int(path.read_text(errors="replace").split("\n", 1)[0]))
    except (OSError, ValueError):
        return
    stat = read_stat(pid)
    if stat is None or stat.state == "Z":
        return
    if stat.comm == "postgres":
        folder = _working_folder(pid)
        if folder is None:
            return
        if folder.resolve() == data.resolve():
            raise ConfigurationError(
                f"cannot start Postgres: another one (pid {pid}) is running on {str(data)!r}; stop it, "
                f"or choose another state folder with SUPERVISOR_STATE_DIR"
            )
    path.unlink(missing_ok=True)


def _working_folder(pid: int) -> Path | None:
    """A postmaster's working folder is its data folder; None where we may not look."""
    try:
        return Path(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return None
