"""Settings of Postgres, Redis and Traefik, and of what is told after the start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from supervisor.core.settings.types import FIELDS, FreePort, Lines, Port, Seconds, SecretStr, ServiceWords, Words


class ServiceLevel(BaseModel):
    """The part of the settings about services, hooks and the webhook."""

    model_config = FIELDS

    database_url: SecretStr | None = Field(
        None, description="an external Postgres; then none is started", json_schema_extra={"aliases": "DATABASE_URL"}
    )
    redis_url: SecretStr | None = Field(
        None, description="an external Redis; then none is started", json_schema_extra={"aliases": "REDIS_URL"}
    )
    services: ServiceWords = Field(
        ("postgres", "redis", "traefik"), description="which services to start; `none`: no one"
    )
    optional_services: Words = Field((), description="services the boot goes on without, degraded")
    essential_services: Words = Field((), description="data services whose failure after boot stops everything")
    postgres_bin_dir: Path | None = Field(None, description="folder with postgres and initdb; default: found")
    redis_binary: Path | None = Field(None, description="redis-server; default: found")
    traefik_binary: Path | None = Field(None, description="traefik; default: found")
    postgres_port: FreePort = Field(0, description="loopback port; 0: chosen once and remembered")
    redis_port: FreePort = Field(0, description="loopback port; 0: chosen once and remembered")
    postgres_start_seconds: Seconds = Field(180, description="deadline to become ready; recovery extends it")
    postgres_recovery_seconds: Seconds = Field(1800, description="longest extension while Postgres recovers")
    redis_start_seconds: Seconds = Field(120, description="deadline to become ready; loading its data extends it")
    redis_recovery_seconds: Seconds = Field(1800, description="longest extension while Redis loads its data")
    traefik_start_seconds: Seconds = Field(60, description="deadline to become ready")
    watch_interval_seconds: Seconds = Field(10, description="probe interval of services after the boot")
    watch_timeout_seconds: Seconds = Field(3, description="limit of one such probe")
    watch_retries: Annotated[int, Field(ge=1)] = Field(3, description="failed probes that make a service unhealthy")

    http_port: Port | None = Field(
        None, description="Traefik's web entry point; default 80, or 8080 where 80 is not ours"
    )
    https_port: Port | None = Field(
        None, description="Traefik's websecure entry point; default 443, or 8443 where 443 is not ours"
    )
    traefik_dir: Path | None = Field(
        None, description="Traefik's files; default /etc/<stack>/traefik with an engine, in the state folder without"
    )
    traefik_dashboard: bool = Field(False, description="Traefik's dashboard, on loopback")
    acme_email: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] | None = Field(
        None, description="e-mail for certificates; turns https redirection on"
    )
    tls_cert_file: Path | None = Field(None, description="own certificate (PEM); turns https redirection on")
    tls_key_file: Path | None = Field(None, description="its key (PEM)")

    post_start_hooks: Lines = Field(
        (), description="commands or http(s) URLs run in parallel once the app is healthy; one a line, or a JSON list"
    )
    hook_seconds: Seconds = Field(60, description="limit of one hook")
    webhook_url: SecretStr | None = Field(None, description="URL that gets the boot notification as JSON (POST)")
