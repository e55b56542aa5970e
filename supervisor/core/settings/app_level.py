"""Settings of an app: what holds for all apps, unless a table `[apps.NAME]` says something else for one."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from supervisor.core.settings.types import (
    FIELDS,
    Argv,
    AtLeastOne,
    AtLeastZero,
    HealthPath,
    Port,
    Restart,
    Seconds,
    SecondsOrZero,
    StopSignal,
    UserName,
)

Health = Literal["http", "tcp", "none"]
OnUnhealthy = Literal["restart", "none", "exit"]
Protocol = Literal["http", "h2c", "tcp"]
Ready = Literal["probe", "notify", "fd"]


class AppLevel(BaseModel):
    """The part of the settings that a table of an app may say anew."""

    model_config = FIELDS

    app_command: Argv | None = Field(
        None,
        description="the app; a string with shell signs runs under sh -c",
        json_schema_extra={"aliases": "APP_COMMAND"},
    )
    app_dir: Path = Field(
        Path("/app"),
        description="the app's folder; default: that of the file in --config, else /app, else the working folder",
        json_schema_extra={"aliases": "APP_DIR"},
    )
    app_user: UserName | None = Field(
        None,
        description="user or user:group (names, numbers) the app, its migrations and hooks run as; default: ours",
    )
    app_host: str | None = Field(
        None, description="host name Traefik routes to the app; default: any", json_schema_extra={"aliases": "APP_HOST"}
    )
    port: Port = Field(3000, description="the app's public port", json_schema_extra={"aliases": "PORT"})
    app_health: Health = Field("http", description="how the app is probed; `none`: it is healthy as soon as it runs")
    app_health_path: HealthPath = Field(
        "/api/health", description="path that must answer 200 to 399; on 404 `/` is asked instead"
    )
    app_health_interval_seconds: Seconds = Field(10, description="liveness probe interval once it serves")
    app_health_timeout_seconds: Seconds = Field(3, description="limit of one liveness probe")
    app_health_retries: AtLeastOne = Field(3, description="failed liveness probes that make it hung")
    app_start_seconds: Seconds = Field(60, description="how long a start of the app may take")
    app_stop_seconds: Seconds = Field(10, description="grace between stop signal and KILL")
    app_stop_signal: StopSignal = Field("TERM", description="stop signal")
    app_restart: Restart = Field("on-failure", description="restart policy of the app")
    on_unhealthy: OnUnhealthy = Field("restart", description="what a hung app leads to")
    app_protocol: Protocol = Field(
        "http", description="what the app speaks; `h2c`: HTTP/2 without TLS (gRPC), `tcp`: anything, by connection"
    )
    app_ready: Ready = Field(
        "probe",
        description="what says that new code is ready: the probe alone, or READY=1 on NOTIFY_SOCKET, or a line on "
        "SUPERVISOR_READY_FD, before it",
    )
    app_min_uptime_seconds: SecondsOrZero = Field(
        0.5, description="how long new code must run before a reload may switch to it"
    )
    overlap: bool = Field(
        True, description="whether two generations may run at a time; if not, a reload makes requests wait"
    )
    hold_seconds: Seconds = Field(10, description="how long requests wait for a generation after a crash")
    bake_seconds: SecondsOrZero = Field(5, description="how long the old generation is kept warm after a switch")
    bake_errors: AtLeastOne = Field(
        3, description="bad answers of new code, at least, that move requests back to the old one"
    )
    drain_seconds: Seconds = Field(30, description="how long the old generation may finish its requests")
    stream_seconds: Seconds = Field(30, description="how long it may keep WebSockets and event streams")
    env_file: Path | None = Field(
        None, description="file of KEY=VALUE lines for the app, read again at each reload; our environment comes first"
    )
    restart_limit: AtLeastZero = Field(5, description="restarts in the window before giving up; 0: no limit")
    restart_window_seconds: Seconds = Field(120, description="window of the restart limit")
    restart_base_seconds: Seconds = Field(0.5, description="first backoff; doubles")
    restart_cap_seconds: Seconds = Field(30, description="longest backoff, and the healthy run that resets it")
    migrate_command: Argv | None = Field(
        None,
        description="migration command, run before each start of new code",
        json_schema_extra={"aliases": "MIGRATE_COMMAND"},
    )
    migrate_dir: Path | None = Field(None, description="folder of NNNN_name.sql files, or a Drizzle folder")
    migrate_seconds: Seconds = Field(300, description="deadline of the migrations")
