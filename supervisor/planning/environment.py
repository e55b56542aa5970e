"""What the app and the commands around it are given: environment, folder, command."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from dotenv.parser import parse_stream

from supervisor.app.spec import Launch
from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.core.settings import PREFIX, Settings, parse_command, variable
from supervisor.environment.resolve import Origin, Resolved, Value
from supervisor.process.account import find_account
from supervisor.process.child import Command, Identity
from supervisor.process.view import Mount, seen
from supervisor.stack.placement import Placement
from supervisor.store.given_files import GivenFiles


def read_env_file(path: Path) -> dict[str, str]:
    """KEY=VALUE lines, quoted as in a shell, without substitution. Raises ConfigurationError naming the first bad line.

    A key without a value is left out, as is one of our own prefix: settings have their own file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            lines = list(parse_stream(file))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {str(path)!r} (SUPERVISOR_ENV_FILE): {why}") from error
    for line in lines:
        if line.error:
            number = line.original.line + line.original.string.count("\n", 0, len(line.original.string) - 1)
            raise ConfigurationError(
                f"cannot read {str(path)!r} (SUPERVISOR_ENV_FILE): line {number} is not KEY=VALUE; mend that line"
            )
    return {
        line.key: line.value
        for line in lines
        if line.key is not None and line.value is not None and not line.key.startswith(PREFIX)
    }


def _told(launch: Launch, base: Mapping[str, str]) -> dict[str, str]:
    """What only one generation is told; `base` is what was said, without declared defaults."""
    told = {"SUPERVISOR_GENERATION": str(launch.number), **dict(launch.readiness.environ)}
    if launch.overlapping:
        told["SUPERVISOR_OVERLAPPING"] = "1"
    if not launch.place.private:
        return told
    told |= {"PORT": str(launch.place.port), "SUPERVISOR_PUBLIC_PORT": base["PORT"]}
    told["HOST"] = base.get("HOST") or launch.place.host
    # Docker sets HOSTNAME to the container's id; servers that bind to it (Next.js) would not be on loopback then.
    if base.get("HOSTNAME", socket.gethostname()) == socket.gethostname():
        told["HOSTNAME"] = launch.place.host
    return told


class AppEnvironment:
    """Builds Commands for the app, its migrations and its hooks.

    Children get our own environment without our settings (a setting may be a secret of ours), plus the app's contract:
    PORT, DATABASE_URL, REDIS_URL, SUPERVISOR_DOCKER_MODE, SUPERVISOR_GENERATION, and DOCKER_HOST where there is an
    engine; then its `variables`. `environ` is what is said for them, ours and more. With a `view` they see its mounts.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        app: str = "app",
        placement: Placement,
        database_url: Secret | None,
        redis_url: Secret | None,
        variables: Resolved | None = None,
        files: GivenFiles | None = None,
        view: tuple[Mount, ...] = (),
    ) -> None:
        self._app = app
        self._settings = settings
        self._view = view
        self.base = {name: value for name, value in environ.items() if not name.startswith(PREFIX)}
        self.base["PORT"] = str(settings.port)
        self.base["SUPERVISOR_DOCKER_MODE"] = placement.mode
        decision = placement.decision
        if decision is not None and decision.endpoint is not None:
            # Resolved once: the CLI knows contexts, SDKs do not, and the two would reach different engines.
            self.base["DOCKER_HOST"] = decision.endpoint.url
            self.base.pop("DOCKER_CONTEXT", None)
        if database_url is not None:
            self.base["DATABASE_URL"] = database_url.reveal()
        if redis_url is not None:
            self.base["REDIS_URL"] = redis_url.reveal()
        self._give(variables.values if variables is not None else {}, files)
        self.ours = dict(self.base)
        """The same for what runs as ourselves."""
        self._account = find_account(settings.app_user, variable("app_user")) if settings.app_user else None
        if self._account is not None:
            self.base |= self._account.environ

    def _give(self, values: Mapping[str, Value], files: GivenFiles | None) -> None:
        """Each as declared: in the environment, or in a file that a variable names."""
        self._files = files
        self._in_files: dict[Path, Secret] = {}
        self._defaults = frozenset(name for name, value in values.items() if value.origin is Origin.DEFAULT)
        for name, value in values.items():
            if value.as_file and files is not None:
                path = files.path(self._app, name, value.secret)
                self._in_files[path] = value.secret
                self.base.pop(name, None)
                self.base[f"{name}_FILE"] = str(path)
            else:
                self.base[name] = value.secret.reveal()

    def _write_files(self) -> None:
        """Before any command that names them; an app's own folder is its user's."""
        if self._files is not None:
            owner = (self._identity.uid, self._identity.gid) if self._identity is not None else None
            self._files.write(self._in_files, owner)

    @property
    def warning(self) -> str:
        """What is not as the settings ask; empty where all is."""
        return self._account.warning if self._account is not None else ""

    def check(self) -> None:
        """Raises ConfigurationError where the app cannot even be tried."""
        if self._settings.app_command is None:
            raise ConfigurationError("cannot start the app: no command is set; give it behind `--`, or set APP_COMMAND")
        folder = self._settings.app_dir
        if not folder.is_dir():
            raise ConfigurationError(
                f"cannot start the app: its folder {str(folder)!r} does not exist; set APP_DIR or --app-dir"
            )

    def app(self, launch: Launch) -> Command:
        """The app itself, told where its generation is to listen."""
        argv = self._settings.app_command
        assert argv is not None, "check() comes first"
        self._write_files()
        # `HOST = "0.0.0.0"` as a default is for a run without us: code behind our front listens on loopback.
        said = {name: value for name, value in self.base.items() if name not in self._defaults}
        command = Command(
            name=self._app,
            argv=argv,
            env={**self.base, **_told(launch, said)},
            pass_fds=launch.readiness.pass_fds,
            cwd=str(self._settings.app_dir),
            identity=self._identity,
            stop_signal=signal.Signals[f"SIG{self._settings.app_stop_signal}"],
        )
        return seen(command, self._view) if self._view else command

    def one_shot(self, name: str, command: str | tuple[str, ...]) -> Command:
        """A migration command or a hook, in the app's folder with the app's environment."""
        argv = parse_command(command) if isinstance(command, str) else command
        if not isinstance(argv, tuple):
            raise ConfigurationError(f"cannot run {name}: its command is empty")
        self._write_files()
        made = Command(name=name, argv=argv, env=self.base, cwd=str(self._settings.app_dir), identity=self._identity)
        return seen(made, self._view) if self._view else made

    @property
    def identity(self) -> Identity | None:
        """Whom the app runs as; None: as we do."""
        return self._identity

    @property
    def _identity(self) -> Identity | None:
        return self._account.identity if self._account is not None else None
