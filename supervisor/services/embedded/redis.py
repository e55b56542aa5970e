"""Redis as a child of ours: its configuration, its command, its probe."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import quote

import anyio.to_thread

from supervisor.core.errors import PrivilegeError
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.redis import probe_redis
from supervisor.probe.verdict import Verdict
from supervisor.process.child import Command, KillMode
from supervisor.services.binaries import find_redis, system_places
from supervisor.services.changing import probe_changing
from supervisor.services.embedded.access import (
    REDIS_UID,
    blocked_path,
    give_tree,
    has_other_owner,
    identity_for,
    owner_of,
)
from supervisor.services.ports import LOOPBACK, PortBook
from supervisor.services.spec import ServiceSpec
from supervisor.store.files import make_folder, write_atomic
from supervisor.store.rotating import RotatingSecret
from supervisor.store.secrets import SecretFolder

NAME = "redis"
SECRET = "redis"  # noqa: S105  (the name of a file)
STOP_SECONDS = 30.0
_READ_ENTER = 0o5


class EmbeddedRedis:
    """The Redis of the stack: password, loopback only, append-only file, nothing evicted.

    `<state>/redis/data` is its data; `<state>/redis/redis.conf` is written anew at each start, as it has the password.
    `environ` is our own environment, of which the server gets PATH and TZ; `users` gives lines
    for more users. Nothing is done before `prepare`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path,
        secrets: SecretFolder,
        ports: PortBook,
        environ: Mapping[str, str],
        users: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._users = users
        self._settings = settings
        self._secrets = secrets
        self._ports = ports
        self._path = environ.get("PATH", os.defpath)
        self._env = {"PATH": self._path} | {name: environ[name] for name in ("TZ",) if name in environ}
        self.folder = state_dir / NAME
        self.identity = identity_for("redis", REDIS_UID, our_uid=os.geteuid())

    @property
    def port(self) -> int:
        """Its loopback port. Raises ConfigurationError where the one asked for is taken."""
        return self._ports.port(NAME, self._settings.redis_port)

    @property
    def url(self) -> Secret:
        """The app's URL. Makes the password on first use."""
        return self._url_with(self._secrets.get_or_make(SECRET))

    def _url_with(self, password: Secret) -> Secret:
        return Secret(f"redis://:{quote(password.reveal(), safe='')}@{LOOPBACK}:{self.port}/0")

    @property
    def record(self) -> RotatingSecret:
        """The password, as it is kept."""
        return self._secrets.rotating(SECRET)

    def spec(self) -> ServiceSpec:
        """What the orchestrator must know of it."""
        settings = self._settings
        return ServiceSpec(
            name=NAME,
            probe=self.probe,
            port=self.port,
            start_seconds=settings.redis_start_seconds,
            recovery_seconds=settings.redis_recovery_seconds,
            stop_seconds=STOP_SECONDS,
            optional=NAME in settings.optional_services,
            essential=NAME in settings.essential_services,
        )

    async def probe(self) -> Verdict:
        """One probe with the app's own password."""
        hint = f"what listens on port {self.port} was started with another one: stop it, then start this again"

        async def ask(password: Secret) -> Verdict:
            limit = self._settings.watch_timeout_seconds
            return await probe_redis(self._url_with(password), limit_seconds=limit, password_hint=hint)

        return await probe_changing(self.record, ask)

    async def prepare(self) -> Command:
        """See `Prepare`; milliseconds."""
        data = self.folder / "data"
        # The folder above is ours, so that the server can write its data and nothing else.
        make_folder(self.folder, mode=0o711)
        self._require_reachable()
        binary = find_redis(
            self._settings.redis_binary,
            places=system_places(self._path),
            blocked=partial(blocked_path, identity=self.identity, leaf_mode=_READ_ENTER),
        )
        await self._make_data_folder(data)
        config = self.folder / "redis.conf"
        text = config_text(self.port, data, self._secrets.get_or_make(SECRET), self._users())
        write_atomic(config, text, durable=False, owner=owner_of(self.identity))
        return Command(
            name=NAME,
            argv=[str(binary), str(config)],
            env=self._env,
            cwd="/",
            identity=self.identity,
            umask=0o077,
            stop_signal=signal.SIGTERM,
            kill_mode=KillMode.PROCESS,
        )

    def _require_reachable(self) -> None:
        reason = blocked_path(self.folder, self.identity)
        if reason:
            raise PrivilegeError(
                f"cannot start Redis: {reason}; let others pass through it (chmod o+x), "
                f"or choose another state folder with SUPERVISOR_STATE_DIR"
            )

    async def _make_data_folder(self, data: Path) -> None:
        owner = owner_of(self.identity)
        if owner is not None and has_other_owner(data, owner):
            await anyio.to_thread.run_sync(give_tree, data, owner)
        make_folder(data, owner=owner)


def config_text(port: int, data: Path, password: Secret, users: Sequence[str] = ()) -> str:
    """redis.conf. Only directives that every Redis from 6 on knows, as an unknown one is fatal to it."""
    return "\n".join(
        (
            "# Written by supervisor at each start.",
            f"bind {LOOPBACK}",
            "protected-mode yes",
            f"port {port}",
            f"requirepass {quoted(password.reveal())}",
            f"dir {quoted(str(data))}",
            "daemonize no",
            'logfile ""',
            # The append-only file holds everything; a snapshot beside it would only cost forks.
            "appendonly yes",
            'save ""',
            "maxmemory-policy noeviction",
            *users,
            "",
        )
    )


def quoted(value: str) -> str:
    """A value as redis.conf has it: in double quotes, everything unusual as bytes in hex."""
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\x{byte:02x}" for byte in value.encode())
    return f'"{"".join(plain)}"'
