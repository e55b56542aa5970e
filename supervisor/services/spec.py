"""What the orchestrator must know of one service, whoever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from supervisor.probe.verdict import Probe
from supervisor.process.child import Command
from supervisor.process.restart import RestartMode, RestartPolicy

Prepare = Callable[[], Awaitable[Command]]
"""Makes a child-process service ready to start (folders, files, first initialisation) and gives its command.

Called before every start, so it must be idempotent and cheap the second time. Raises our errors; those with exit code
78 or 77 end the boot at once.
"""


@dataclass(frozen=True, kw_only=True)
class ServiceSpec:
    """One service. `requires` must be ready first, `wants` are waited for but may fail; seconds throughout.

    `port` is the TCP port its own process must be found listening on (None: not checked). `retries` bounds the probes
    of a start (0: only the deadline does). `optional` lets the boot go on without it, `essential` makes its giving up
    after the boot the end of everything. `outlives` says that it runs on when we end: somebody else stops it.
    `hung_after` so many failed probes in a row it is stopped and started again (0: never; it may come back by itself).
    """

    name: str
    probe: Probe
    requires: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    port: int | None = None
    start_seconds: float = 60.0
    recovery_seconds: float = 0.0
    check_interval_seconds: float | None = None
    retries: int = 0
    stop_seconds: float = 10.0
    restart: RestartPolicy = field(default_factory=lambda: RestartPolicy(mode=RestartMode.ALWAYS))
    optional: bool = False
    essential: bool = False
    outlives: bool = False
    hung_after: int = 0
