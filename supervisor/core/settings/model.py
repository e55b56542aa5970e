"""The settings, typed and frozen: every part in one model, and what holds for one app of several."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from supervisor.core.secret import Secret
from supervisor.core.settings.app import Apps
from supervisor.core.settings.app_level import AppLevel
from supervisor.core.settings.bindings import Binding
from supervisor.core.settings.engine_level import EngineLevel
from supervisor.core.settings.front_level import FrontLevel
from supervisor.core.settings.names import PREFIX, TABLES
from supervisor.core.settings.order import start_order
from supervisor.core.settings.release_level import ReleaseLevel
from supervisor.core.settings.service import UserService
from supervisor.core.settings.service_level import ServiceLevel
from supervisor.core.settings.types import FIELDS, Argv, Name, Seconds, Stage, VariableName

ONLY_APP = "app"


class Settings(EngineLevel, ServiceLevel, ReleaseLevel, FrontLevel, AppLevel, BaseModel):
    """All settings. The environment variable of `x` is `SUPERVISOR_X`; its `aliases` are accepted too."""

    model_config = FIELDS

    mode: Literal["auto", "dind", "socket", "remote", "embedded", "none"] = Field(
        "auto", description="where Postgres, Redis and Traefik run; `embedded`: child processes, `none`: nowhere"
    )
    stack: Name = Field("dokploy", description="name of the stack; services, database and user are named after it")
    state_dir: Path | None = Field(
        None, description="data, secrets and records; default /var/lib/supervisor as root, else below XDG_STATE_HOME"
    )
    runtime_dir: Path | None = Field(
        None, description="sockets; default /run/supervisor as root, else below XDG_RUNTIME_DIR"
    )
    socket: Path | None = Field(None, description="control socket; default control.sock in the runtime folder")
    log_format: Literal["auto", "text", "json"] = Field("auto", description="auto: text on a terminal, else json")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level printed")
    log_rate_lines: Annotated[int, Field(ge=0)] = Field(
        10_000, description="lines taken a second of each stream of a source; what is beyond is dropped; 0: no limit"
    )
    log_rate_mib: Annotated[int, Field(ge=0, le=1024)] = Field(4, description="the same in MiB; 0: no limit")
    log_dir: Path | None = Field(
        None, description="folder for a log file of each source, beside standard output; default: none are written"
    )
    log_max_mib: Annotated[int, Field(ge=1, le=10_240)] = Field(
        20, description="a log file is rotated before it is this big, and each day"
    )
    log_max_days: Annotated[int, Field(ge=1, le=3650)] = Field(
        14, description="rotated files are removed after so many days"
    )
    log_keep: Annotated[int, Field(ge=0, le=1000)] = Field(10, description="rotated files kept of each source")
    stage: Stage = Field("production", description="which `.env.STAGE` in the app's folder is read")
    secrets_dir: Path = Field(
        Path("/run/secrets"), description="folder of files, each named as a setting in lower case, with its value"
    )
    secrets_command: Argv | None = Field(
        None,
        description='prints secrets at the start and at each reload, as KEY=VALUE lines or JSON `{"KEY": "value"}`',
        json_schema_extra={"aliases": "SECRETS_COMMAND"},
    )
    secrets_seconds: Seconds = Field(30, description="deadline of that command")
    stop_seconds: Seconds | None = Field(
        None, description="whole budget of a stop in seconds; default 8.5 as PID 1 (Docker gives 10), else 60"
    )
    boot_seconds: Seconds = Field(900, description="deadline of the whole boot in seconds")
    on_app_failure: Literal["exit", "hold"] | None = Field(
        None, description="what an app that gave up leads to; default: exit (hold in dind)"
    )
    trigger_file: Path | None = Field(
        None, description="touching it reloads; default .reload-trigger in the app's folder"
    )

    bindings: dict[VariableName, Binding] = Field(
        default_factory=dict,
        description="variables that every app gets, by name, made of facts: `[bindings]`, in supervisor.toml only",
    )
    user_services: dict[Name, UserService] = Field(
        default_factory=dict, description="services of your own: [services.NAME] tables, in supervisor.toml only"
    )
    apps: Apps = Field(default_factory=dict, description="several apps: [apps.NAME] tables, in supervisor.toml only")

    @property
    def app_names(self) -> tuple[str, ...]:
        """The apps, each behind those it requires; one called `app` where there are no tables."""
        if not self.apps:
            return (ONLY_APP,)
        order, circle = start_order({name: app.requires for name, app in self.apps.items()})
        assert not circle, "checked where the settings are built"
        return order

    def for_app(self, name: str) -> Settings:
        """The settings as they hold for one app: what its table says, else what is said in general.

        Raises KeyError where there is no such app.
        """
        if not self.apps and name == ONLY_APP:
            return self
        table = self.apps[name]
        said = {"app_dir": self.app_dir, "port": self.ports_of_apps[name], **table.said()}
        if table.env_file is not None:
            said["env_file"] = said["app_dir"] / table.env_file
        return self.model_copy(update=said)

    @property
    def ports_of_apps(self) -> dict[str, int]:
        """The public port of each app; the first that says none has the general one."""
        found: dict[str, int] = {}
        general = True
        for name, app in self.apps.items():
            if app.port is not None:
                found[name] = app.port
            elif general:
                found[name], general = self.port, False
        return found


class Loaded(BaseModel):
    """Settings with where each value came from, and what deserves a warning."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    settings: Settings
    origins: dict[str, str]
    warnings: tuple[str, ...] = ()
    fetched: dict[str, Secret] = Field(default_factory=dict)
    """What the secrets command printed for the app: below our environment, above everything else."""
    env_files: dict[str, Secret] = Field(default_factory=dict)
    """What `.env.STAGE` and `.env` say for the app: below `env_file`."""
    general: Settings | None = None
    """Of those of one app: the settings as they hold for all, which say where its siblings are."""

    def for_app(self, name: str) -> Loaded:
        """The same for one app; see `Settings.for_app`."""
        return self.model_copy(update={"settings": self.settings.for_app(name), "general": self.settings})

    def app_values(self, env_file: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
        """What an app is given of all that was said: our environment first, then the secrets command, its `env_file`,
        `.env.STAGE` and `.env`. Names of ours are none of its business. The values are secrets: for the app only.
        """
        found = {name: value.reveal() for name, value in self.env_files.items()} | dict(env_file)
        found |= {name: value.reveal() for name, value in self.fetched.items()}
        found |= environ
        return {name: value for name, value in found.items() if not name.startswith(PREFIX)}


def aliases(field: str) -> tuple[str, ...]:
    """Other environment variables accepted for it; the first one set wins after the variable itself."""
    extra = Settings.model_fields[field].json_schema_extra
    names = extra.get("aliases", "") if isinstance(extra, dict) else ""
    return tuple(str(names).split())


def secret_fields() -> list[str]:
    """The settings whose values are shown to nobody."""
    return [name for name, info in Settings.model_fields.items() if "Secret" in str(info.annotation)]


def plain_fields() -> list[str]:
    """The settings that have a variable."""
    return [name for name in Settings.model_fields if name not in TABLES]
