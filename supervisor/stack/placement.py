"""Where the services of this run live, decided once; without an engine nothing of the engine's is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from supervisor.core.errors import ConfigurationError
from supervisor.core.events import ModeChosen, Notice, Publish, Warned
from supervisor.core.mode import Mode, ModeTraits, traits
from supervisor.core.settings import Settings

if TYPE_CHECKING:
    from supervisor.engine.decision import Decision, Wait
    from supervisor.state import State

_LONGEST_STACK = 42  # Swarm takes 64 characters for the name of a secret


@dataclass(frozen=True)
class Placement:
    """The mode with what it implies; `decision` is there where there is an engine. `services` are the built-in ones."""

    mode: Mode
    traits: ModeTraits
    services: tuple[str, ...]
    decision: Decision | None = None


async def find_placement(settings: Settings, environ: Mapping[str, str], state: State, publish: Publish) -> Placement:
    """Decide and say so, and warn where the state will not last.

    Raises EngineError, or ConfigurationError where the mode cannot run what is asked for.
    """
    from supervisor.engine.keeping import state_keeping

    if warning := state_keeping(state.paths.state):
        publish(Warned(message=warning))
    if settings.mode in (Mode.EMBEDDED, Mode.NONE):
        mode = Mode(settings.mode)
        found = Placement(mode, traits(mode), built_in_services(settings, mode))
        publish(_chosen(found, "chosen by SUPERVISOR_MODE"))
        return found
    from supervisor.engine.mode import detect
    from supervisor.engine.reader import FactReader, Sources

    sources = replace(Sources.of(settings, environ, state.paths.runtime), instance=state.install.uuid)
    decision = await detect(FactReader(sources), _Teller(publish))
    found = Placement(
        decision.mode, traits(decision.mode, decision.owner), built_in_services(settings, decision.mode), decision
    )
    publish(_chosen(found, decision.reason))
    for warning in decision.warnings:
        publish(Warned(message=warning))
    return found


class _Teller:
    """Waits between two looks, and tells once what for."""

    def __init__(self, publish: Publish) -> None:
        self._publish = publish
        self._told = ""

    async def __call__(self, wait: Wait) -> None:
        from supervisor.engine.mode import pause

        if wait.reason != self._told:
            self._told = wait.reason
            self._publish(Notice(message="waiting for an engine", detail=f"up to {wait.seconds:g} s; {wait.reason}"))
        await pause(wait)


def _chosen(found: Placement, reason: str) -> ModeChosen:
    decision = found.decision
    owner = decision.owner if decision is not None else None
    return ModeChosen(
        message=f"Docker Mode: Running in {found.mode.upper()} mode",
        mode=found.mode,
        reason=reason,
        owner=owner or "",
        engine=decision.endpoint.url if decision is not None and decision.endpoint is not None else "",
        evidence=decision.evidence if decision is not None else (),
        services=(*(("dockerd",) if decision is not None and decision.start_engine else ()), *found.services),
    )


def built_in_services(settings: Settings, mode: Mode) -> tuple[str, ...]:
    """The built-in services that this run has; an external URL stands in for one."""
    if mode is Mode.NONE:
        return ()
    if len(settings.stack) > _LONGEST_STACK and mode is not Mode.EMBEDDED:
        raise ConfigurationError(
            f"cannot use SUPERVISOR_STACK {settings.stack!r} on an engine: it has {len(settings.stack)} characters, "
            f"and names of secrets made from it would be too long; choose one of {_LONGEST_STACK} at most"
        )
    given = {"postgres": settings.database_url, "redis": settings.redis_url}
    ours = tuple(name for name in settings.services if given.get(name) is None)
    if mode is Mode.REMOTE and ours:
        raise ConfigurationError(
            f"cannot run {', '.join(ours)} in remote mode: the engine runs elsewhere, so neither could the app reach "
            f"their network, nor could they be published without being open to all of that network; set DATABASE_URL "
            f"and REDIS_URL, and SUPERVISOR_SERVICES=none, or mount the socket of the engine that runs this "
            f"container, or run with --privileged and the dind image"
        )
    return ours
