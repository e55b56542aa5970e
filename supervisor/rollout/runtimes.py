"""Which programs the app would run by are here, and in which version. Wiring."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from supervisor.core.errors import SupervisorError
from supervisor.planning.environment import AppEnvironment
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import run_and_quote

_SECONDS = 10.0
_KNOWN = frozenset({"node", "python", "python3", "bun", "deno", "ruby", "php"})
"""Programs whose `--version` may be asked for: a manifest must not make us run whatever it names."""


async def versions(names: Iterable[str], environment: AppEnvironment, reaper: Reaper) -> dict[str, str]:
    """The versions of those of the programs that we know and that are here, as the app would find them."""
    found = {}
    for name in sorted(set(names) & _KNOWN):
        command = environment.one_shot(name, (name, "--version"))
        with suppress(SupervisorError):
            status, said = await run_and_quote(reaper, command, Ring(name), limit_seconds=_SECONDS)
            if status == 0:
                found[name] = said.split()[-1] if said.split() else ""
    return found
