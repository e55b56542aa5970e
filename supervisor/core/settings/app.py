"""An app of several: its table `[apps.NAME]` in supervisor.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from supervisor.core.settings.app_env import AppEnv
from supervisor.core.settings.app_level import AppLevel, Health, OnUnhealthy, Protocol, Ready
from supervisor.core.settings.types import (
    TABLE,
    Argv,
    AtLeastOne,
    AtLeastZero,
    HealthPath,
    Name,
    Port,
    Restart,
    Seconds,
    SecondsOrZero,
    StopSignal,
    UserName,
    Words,
)


def _table_or_not(value: object) -> object:
    """`false`: none; `true`: with its defaults."""
    if isinstance(value, bool):
        return {} if value else None
    if value is None:
        raise ValueError("give a table, or false")
    return value


SchemaName = Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9_.-]{0,62}$")]
RedisPrefix = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:/{}-]{1,64}$")]


class AppDatabase(BaseModel):
    """An app's place in the stack's database."""

    model_config = TABLE

    # `schema` is a method of pydantic's.
    schema_name: SchemaName = Field(
        "", alias="schema", description="its schema; default: the app's name, dashes as underscores"
    )
    owner: bool = Field(True, description="whether the app owns that schema; if not, it may only use it")
    public: bool = Field(False, description="whether it owns the schema `public` too; then `schema` may be `public`")
    reads: Words = Field((), description="apps whose schemas it may read")


class AppRedis(BaseModel):
    """An app's place in the stack's Redis."""

    model_config = TABLE

    prefix: RedisPrefix = Field("", description="what its keys begin with; default: the app's name and a colon")


class AppSettings(BaseModel):
    """What is said of one app; None: as the general settings have it. `Settings.for_app` puts the two together.

    Every key but `requires`, `database`, `redis` and `env` is a setting of `AppLevel`, without its `app_`.
    """

    model_config = TABLE

    requires: Words = Field((), description="apps and services that must serve first")
    database: Annotated[AppDatabase | None, BeforeValidator(_table_or_not)] = Field(
        default_factory=AppDatabase, description="its schema and rights; `false`: no database for it"
    )
    redis: Annotated[AppRedis | None, BeforeValidator(_table_or_not)] = Field(
        default_factory=AppRedis, description="its keys; `false`: no Redis for it"
    )
    env: AppEnv = Field(default_factory=AppEnv, description="what it needs in its environment")

    command: Argv
    dir: Path | None = None
    user: UserName | None = None
    host: str | None = None
    port: Port | None = None
    health: Health | None = None
    health_path: HealthPath | None = None
    health_interval_seconds: Seconds | None = None
    health_timeout_seconds: Seconds | None = None
    health_retries: AtLeastOne | None = None
    start_seconds: Seconds | None = None
    stop_seconds: Seconds | None = None
    stop_signal: StopSignal | None = None
    restart: Restart | None = None
    on_unhealthy: OnUnhealthy | None = None
    protocol: Protocol | None = None
    ready: Ready | None = None
    min_uptime_seconds: SecondsOrZero | None = None
    overlap: bool | None = None
    hold_seconds: Seconds | None = None
    bake_seconds: SecondsOrZero | None = None
    bake_errors: AtLeastOne | None = None
    drain_seconds: Seconds | None = None
    stream_seconds: Seconds | None = None
    env_file: Path | None = None
    restart_limit: AtLeastZero | None = None
    restart_window_seconds: Seconds | None = None
    restart_base_seconds: Seconds | None = None
    restart_cap_seconds: Seconds | None = None
    migrate_command: Argv | None = None
    migrate_dir: Path | None = None
    migrate_seconds: Seconds | None = None

    def named(self, name: str) -> AppSettings:
        """With what follows from the app's name where nothing was said: its schema, the beginning of its keys."""
        database, redis = self.database, self.redis
        if database is not None and not database.schema_name:
            database = database.model_copy(update={"schema_name": name.replace("-", "_")})
        if redis is not None and not redis.prefix:
            redis = redis.model_copy(update={"prefix": f"{name}:"})
        return self.model_copy(update={"database": database, "redis": redis})

    def said(self) -> dict[str, Any]:
        """The settings that the table gives, by their names there (`app_command`, `port`)."""
        values = {setting: getattr(self, key) for key, setting in SETTING_OF.items()}
        return {setting: value for setting, value in values.items() if value is not None}


SETTING_OF: Mapping[str, str] = {
    key: f"app_{key}" if f"app_{key}" in AppLevel.model_fields else key
    for key in AppSettings.model_fields
    if key not in ("requires", "database", "redis", "env")
}
"""The setting of each key of a table that is one of `AppLevel`."""


def named_apps(apps: dict[str, AppSettings]) -> dict[str, AppSettings]:
    """Each with what follows from its name."""
    return {name: app.named(name) for name, app in apps.items()}


Apps = Annotated[dict[Name, AppSettings], Field(max_length=64), AfterValidator(named_apps)]
