"""Services of the user's own, as their tables in supervisor.toml describe them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from supervisor.core.settings.types import Argv, Restart, Seconds, StopSignal, Words


class UserService(BaseModel):
    """A service of the user's own, `[services.NAME]` in supervisor.toml."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)

    command: Argv = Field(description="what to run")
    cwd: Path | None = Field(None, description="working folder; default: the app's")
    env: dict[str, str] = Field(default_factory=dict, description="added to the app's environment", repr=False)
    requires: Words = Field(
        (), description="services that must be ready first; when one of them fails, this one is not started"
    )
    wants: Words = Field((), description="services that are waited for, but may fail")
    health_http: str | None = Field(None, description="URL that must answer 200 to 399")
    health_tcp: str | None = Field(None, description="host:port that must accept")
    health_command: Argv | None = Field(None, description="command that must exit 0")
    check_interval_seconds: Seconds | None = Field(None, description="fixed probe interval; default: the schedule")
    timeout_seconds: Seconds = Field(60, description="how long it may take to become ready")
    retries: Annotated[int, Field(ge=0)] = Field(0, description="probes before giving up; 0: until the timeout")
    optional: bool = Field(False, description="the boot goes on, degraded, without it")
    restart: Restart = Field("always", description="restart policy")
    stop_signal: StopSignal = Field("TERM", description="stop signal")
    stop_seconds: Seconds = Field(10, description="grace before KILL")

    @model_validator(mode="after")
    def _one_health_check(self) -> Self:
        given = [check for check in (self.health_http, self.health_tcp, self.health_command) if check]
        if len(given) > 1:
            raise ValueError("give one of health_http, health_tcp and health_command")
        return self
