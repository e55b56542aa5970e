"""What an app is: what to run, how to judge it, and the limits of its reloads. Plain values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.app.front.model import Place
from supervisor.app.gate import Excuse, HealthCheck
from supervisor.app.notify import Readiness
from supervisor.process.child import Command
from supervisor.process.restart import RestartPolicy


class OnUnhealthy(StrEnum):
    """What a hung app leads to."""

    RESTART = "restart"
    NONE = "none"
    EXIT = "exit"


@dataclass(frozen=True)
class Launch:
    """What one generation is told: its number, where to listen, how to say that it is ready, and whether another runs
    beside it.
    """

    number: int
    place: Place
    readiness: Readiness
    overlapping: bool = False


@dataclass(frozen=True, kw_only=True)
class ReloadLimits:
    """Seconds throughout. `bake_errors` bad answers are needed at least before an answer counts against new code."""

    bake_seconds: float = 5.0
    bake_errors: int = 3
    drain_seconds: float = 30.0
    stream_seconds: float = 30.0
    hold_seconds: float = 10.0


@dataclass(frozen=True, kw_only=True)
class AppSpec:
    """What to run and how to judge it; seconds throughout. `command` gives the Command of one generation.

    The port and host of `check` are those of the generation's place. `readiness` gives the way in which generation n
    says that it is ready; it must only where `must_say_ready`.
    """

    name: str
    command: Callable[[Launch], Command]
    check: HealthCheck
    readiness: Callable[[int], Readiness]
    public_port: int
    start_seconds: float = 60.0
    min_uptime_seconds: float = 0.0
    must_say_ready: bool = False
    stop_seconds: float = 10.0
    interval_seconds: float = 10.0
    retries: int = 3
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    on_unhealthy: OnUnhealthy = OnUnhealthy.RESTART
    hold: bool = False
    overlap: bool = True
    limits: ReloadLimits = field(default_factory=ReloadLimits)
    excuse: Excuse = lambda: ""
