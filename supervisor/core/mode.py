"""Where the stack runs, and the one value that tells every room what that means for it. Detection is the engine's."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class Mode(StrEnum):
    """The words of `SUPERVISOR_MODE`, of the log and of `SUPERVISOR_DOCKER_MODE`."""

    DIND = "dind"
    """A dockerd in our own namespaces: started by us, or by another init (see `Owner`)."""
    SOCKET = "socket"
    """The engine that runs our own container."""
    REMOTE = "remote"
    """An engine that is neither ours nor runs us: another machine's, or a sidecar's."""
    EMBEDDED = "embedded"
    """No engine: Postgres, Redis and Traefik are child processes. Only ever chosen by name."""
    NONE = "none"
    """No engine and no services of ours: the app alone. Only ever chosen by name."""


class Owner(StrEnum):
    """Whose engine it is; a foreign one is never stopped or restarted by us."""

    OWN = "own"
    FOREIGN = "foreign"


class Where(StrEnum):
    """A place as seen from our container."""

    HERE = "here"
    HOST = "host"
    THERE = "there"
    """On another machine or in a sidecar: nothing of ours can be handed over by path."""


@dataclass(frozen=True, kw_only=True)
class ModeTraits:
    """What a mode implies."""

    bind_paths: Where
    """Whose file system a bind mount's source names."""
    ports: Where
    """Where a published port appears."""
    has_engine: bool
    supervises_engine: bool
    """We start the engine, restart it and stop it."""
    data_outlives_stop: bool
    """Postgres and Redis go on when we stop."""
    parallel_calls: int
    """Calls to the engine at once, so that a start does not crowd out the probes."""
    deadline_factor: float
    """What deadlines of services are multiplied by: an engine inside a container pays for storage twice, and one
    across a network for the way. The factors are chosen, not measured; they are upper bounds only."""
    on_app_failure: Literal["hold", "exit"]
    """The default: in dind one failing app must not take the engine and the data with it."""


def traits(mode: Mode, owner: Owner | None = None) -> ModeTraits:
    """What `mode` implies; `owner` matters in dind only, where None is our own."""
    match mode:
        case Mode.DIND:
            return _dind(own=owner is not Owner.FOREIGN)
        case Mode.SOCKET:
            return _engine_elsewhere(Where.HOST, deadline_factor=1.0)
        case Mode.REMOTE:
            return _engine_elsewhere(Where.THERE, deadline_factor=2.0)
        case Mode.EMBEDDED | Mode.NONE:
            return ModeTraits(
                bind_paths=Where.HERE,
                ports=Where.HERE,
                has_engine=False,
                supervises_engine=False,
                data_outlives_stop=mode is Mode.NONE,
                parallel_calls=1,
                deadline_factor=1.0,
                on_app_failure="exit",
            )


def _dind(*, own: bool) -> ModeTraits:
    return ModeTraits(
        bind_paths=Where.HERE,
        ports=Where.HERE,
        has_engine=True,
        supervises_engine=own,
        data_outlives_stop=not own,
        parallel_calls=4,
        deadline_factor=2.0,
        on_app_failure="hold",
    )


def _engine_elsewhere(where: Where, *, deadline_factor: float) -> ModeTraits:
    return ModeTraits(
        bind_paths=where,
        ports=where,
        has_engine=True,
        supervises_engine=False,
        data_outlives_stop=True,
        parallel_calls=8,
        deadline_factor=deadline_factor,
        on_app_failure="exit",
    )
