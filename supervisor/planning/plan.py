"""The app as the settings say it now: environment, what to run, migrations. Made anew at each reload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from supervisor.app.gate import Excuse, HealthCheck
from supervisor.app.notify import NotifySocket, Readiness, ReadyFd
from supervisor.app.spec import AppSpec, OnUnhealthy, ReloadLimits
from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.core.settings import AppSettings, Loaded, Settings, variable
from supervisor.environment.resolve import complaint
from supervisor.migrations.command import CommandMigrations, SpawnedRun
from supervisor.migrations.folder import open_folder
from supervisor.migrations.model import Migrations
from supervisor.planning.environment import AppEnvironment
from supervisor.planning.home import AppHome
from supervisor.planning.variables import AppVariables
from supervisor.planning.view import check_paths, view_of
from supervisor.process.child import Identity
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.restart import RestartMode, RestartPolicy
from supervisor.process.view import Mount
from supervisor.stack.placement import Placement
from supervisor.store.given_files import GivenFiles

RELOADED = frozenset(
    {
        "app_command",
        "app_user",
        "app_health",
        "app_health_path",
        "app_health_interval_seconds",
        "app_health_timeout_seconds",
        "app_health_retries",
        "app_start_seconds",
        "app_stop_seconds",
        "app_stop_signal",
        "app_restart",
        "app_ready",
        "app_min_uptime_seconds",
        "on_unhealthy",
        "restart_limit",
        "restart_window_seconds",
        "restart_base_seconds",
        "restart_cap_seconds",
        "migrate_command",
        "migrate_dir",
        "migrate_seconds",
        "overlap",
        "bake_seconds",
        "bake_errors",
        "drain_seconds",
        "stream_seconds",
        "env_file",
        "bindings",
    }
)
"""Settings that a reload puts in force; what else was changed waits for the next start."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What of the app's world stays while it is reloaded. `ring` gives the output ring of a name.

    Notify sockets are made in `runtime_dir`.
    """

    runtime_dir: Path
    placement: Placement
    variables: AppVariables
    migration_url: Callable[[str], Secret | None]
    files: GivenFiles
    hold: bool
    excuse: Excuse
    reaper: Reaper
    ring: Callable[[str], Ring]
    """Has it masked from then on."""

    def readiness_by(self, app: str, way: str, identity: Identity | None) -> Callable[[int], Readiness]:
        """How generation n says that it is ready: by the pipe where that is set, else by the notify socket."""
        if way == "fd":
            return lambda number: ReadyFd()
        owner = (identity.uid, identity.gid) if identity is not None else None
        return lambda number: NotifySocket(self.runtime_dir / f"notify-{app}-{number}.sock", owner)


class AppPlan:
    """Raises ConfigurationError for what cannot be; nothing is started or changed by making one."""

    def __init__(self, name: str, loaded: Loaded, around: Surroundings, home: AppHome | None = None) -> None:
        self.loaded = loaded
        self.settings = settings = loaded.settings
        self.home = home or AppHome()
        self._around = around
        self._said = self.home.applied(settings)
        alone = len(settings.app_names) == 1
        self._lock = settings.stack if alone else f"{settings.stack}-{name}"
        """What only one migrates at a time; each app has tables of its own."""
        self._migrate = "migrate" if alone else f"{name}-migrate"
        self._migration_url = around.migration_url(name)
        self._apart = "" if alone else name.replace("-", "_")
        self.variables = around.variables.of(name, loaded)
        self.environment = AppEnvironment(
            self._said,
            around.variables.given(name, loaded),
            app=name,
            placement=around.placement,
            database_url=around.variables.database_url(name),
            redis_url=around.variables.redis_url(name),
            variables=self.variables,
            files=around.files,
            view=self._view(),
        )
        self.environment.check()
        if lacking := self.home.lacking(self.environment.base):
            raise ConfigurationError(
                f"cannot run the release: it needs {', '.join(lacking)} in its environment; set it in the container's "
                f"environment, or in the file that SUPERVISOR_ENV_FILE names"
            )
        self.spec = self._spec(name)
        self.migrations = self._migrations()

    def check_variables(self) -> None:
        """Raises ConfigurationError where some that it needs are missing or wrong."""
        if text := complaint([self.variables]):
            raise ConfigurationError(text)

    def _view(self) -> tuple[Mount, ...]:
        """What of the release is shown in the place of the image's own; a command must not name that else."""
        tree, app_dir = self.home.tree, self.settings.app_dir
        if tree is None:
            return ()
        if self.settings.release_mount:
            return view_of(tree, app_dir)
        for command in (self._said.app_command, self._said.migrate_command):
            check_paths(command or (), tree, app_dir)
        return ()

    def _spec(self, name: str) -> AppSpec:
        settings = self._said
        return AppSpec(
            name=name,
            command=self.environment.app,
            check=HealthCheck(
                settings.app_health,
                settings.port,
                settings.app_health_path,
                limit_seconds=settings.app_health_timeout_seconds,
            ),
            readiness=self._around.readiness_by(name, settings.app_ready, self.environment.identity),
            public_port=settings.port,
            must_say_ready=settings.app_ready != "probe",
            start_seconds=settings.app_start_seconds,
            min_uptime_seconds=settings.app_min_uptime_seconds,
            stop_seconds=settings.app_stop_seconds,
            interval_seconds=settings.app_health_interval_seconds,
            retries=settings.app_health_retries,
            restart=restart_policy(settings, settings.app_restart),
            on_unhealthy=OnUnhealthy(settings.on_unhealthy),
            hold=self._around.hold,
            overlap=settings.overlap,
            limits=ReloadLimits(
                bake_seconds=settings.bake_seconds,
                bake_errors=settings.bake_errors,
                drain_seconds=settings.drain_seconds,
                stream_seconds=settings.stream_seconds,
                hold_seconds=settings.hold_seconds,
            ),
            excuse=self._around.excuse,
        )

    def _migrations(self) -> Migrations | None:
        settings, dsn = self._said, self._migration_url
        if settings.migrate_command is not None:
            return CommandMigrations(
                SpawnedRun(
                    self._around.reaper,
                    partial(self.environment.one_shot, self._migrate, settings.migrate_command),
                    self._around.ring(self._migrate),
                ),
                dsn,
                lock_name=self._lock,
                deadline_seconds=settings.migrate_seconds,
                apart=self._apart,
            )
        if settings.migrate_dir is None:
            return None
        if dsn is None:
            raise ConfigurationError(
                "cannot run the migrations in SUPERVISOR_MIGRATE_DIR: there is no database; "
                "set DATABASE_URL, or run with Postgres"
            )
        folder = settings.app_dir / settings.migrate_dir
        return open_folder(
            folder, dsn, lock_name=self._lock, deadline_seconds=settings.migrate_seconds, apart=self._apart
        )


def restart_policy(settings: Settings, mode: str) -> RestartPolicy:
    """The policy the settings describe; ConfigurationError where its limit cannot be reached."""
    policy = RestartPolicy(
        mode=RestartMode(mode),
        base_seconds=settings.restart_base_seconds,
        cap_seconds=settings.restart_cap_seconds,
        limit=settings.restart_limit,
        window_seconds=settings.restart_window_seconds,
    )
    impossible = policy.unreachable_limit()
    if impossible:
        raise ConfigurationError(f"cannot use the restart settings: {impossible}")
    return policy


def reloaded(current: Settings, read: Settings) -> tuple[Settings, str]:
    """The settings a reload puts in force, and what to tell of those that wait for the next start (or nothing)."""
    names = type(current).model_fields
    # What the tables of the apps say of this one is in the other fields already.
    changed = [name for name in names if name != "apps" and getattr(current, name) != getattr(read, name)]
    now = {name: getattr(read, name) for name in changed if name in RELOADED}
    apps, waiting = _tables(current, read)
    later = ", ".join([*(variable(name) for name in changed if name not in RELOADED), *waiting])
    told = f"changed, but in force only from the next start on: {later}" if later else ""
    return current.model_copy(update={**now, "apps": apps}), told


def _tables(current: Settings, read: Settings) -> tuple[dict[str, AppSettings], list[str]]:
    """The apps with what they declare now, and what of their tables waits for the next start."""
    apps: dict[str, AppSettings] = {}
    waiting = [f"[apps.{name}]" for name in sorted({*current.apps} ^ {*read.apps})]
    for name, app in current.apps.items():
        new = read.apps.get(name, app)
        waiting += [
            f"[apps.{name}] {key}"
            for key in ("requires", "database", "redis")
            if getattr(app, key) != getattr(new, key)
        ]
        apps[name] = app.model_copy(update={"env": new.env})
    return apps, waiting
