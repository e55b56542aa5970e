"""One supervisor for each stack on an engine: a Swarm config whose labels say who has the stack.

A config's labels change by version only, so of two that start at once one gets it, and the other reads that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import anyio
from anyio.abc import TaskStatus

from supervisor.core.errors import ConfigurationError, SupervisorError, UnreachableError
from supervisor.engine import labels as names
from supervisor.engine import resources
from supervisor.engine.errors import Conflict, EngineRefused, NotFound, OutOfSequence
from supervisor.services.swarm.spec import Owner

LIVE_SECONDS = 60.0
"""How long a signature of a holder counts that cannot be looked at."""
SIGN_SECONDS = 20.0
RELEASE_SECONDS = 5.0
_DATA = b"The labels of this config say which supervisor has the stack.\n"
_TRIES = 8
_JITTER_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A supervisor. `container` is its own on this very engine, empty where it is none of it (dind, a plain process).

    `process` tells its runs apart (pid, start and boot id, in any words). `node` is the Swarm node it is on.
    """

    container: str
    hostname: str
    process: str
    node: str = ""


@dataclass(frozen=True)
class Claim:
    """What a lease says: who has the stack, of which install, and when that one last signed."""

    install: str
    holder: Holder
    signed: datetime

    def labels(self, stack: str) -> dict[str, str]:
        """As the lease bears it."""
        return names.owned(self.install, stack) | {
            names.LEASE: self.holder.container,
            names.LEASE_NODE: self.holder.node,
            names.LEASE_HOSTNAME: self.holder.hostname,
            names.LEASE_PROCESS: self.holder.process,
            names.LEASE_SIGNED: self.signed.isoformat(timespec="seconds"),
        }


@dataclass(frozen=True)
class Sight:
    """What this engine shows of the holder: whether it runs (None: it cannot be seen from here), in words."""

    runs: bool | None
    text: str
    way_out: str = ""


@dataclass(frozen=True)
class Take:
    """It is ours to take; `said` is what people should know, empty where it was free or ours."""

    said: str = ""


@dataclass(frozen=True)
class Held:
    """Another supervisor has it, and lives; why, and what the reader can do."""

    why: str
    way_out: str


def lease_name(stack: str) -> str:
    """The config that stands for a stack's lease."""
    return f"{stack}-supervisor-lease"


def read_claim(labels: Mapping[str, str] | None) -> Claim | None:
    """Who has it; None where it is free. A signature that cannot be read is as old as can be."""
    found = labels or {}
    if names.LEASE_SIGNED not in found:
        return None
    holder = Holder(
        container=found.get(names.LEASE, ""),
        hostname=found.get(names.LEASE_HOSTNAME, ""),
        process=found.get(names.LEASE_PROCESS, ""),
        node=found.get(names.LEASE_NODE, ""),
    )
    try:
        signed = datetime.fromisoformat(found[names.LEASE_SIGNED]).astimezone(UTC)
    except ValueError:
        signed = datetime.min.replace(tzinfo=UTC)
    return Claim(found.get(names.INSTALL, ""), holder, signed)


def is_held_by(claim: Claim, holder: Holder) -> bool:
    """By its container, which has one supervisor whatever its run; else by its process."""
    if claim.holder.container or holder.container:
        return claim.holder.container == holder.container
    return (claim.holder.hostname, claim.holder.process) == (holder.hostname, holder.process)


def judge_claim(claim: Claim, sight: Sight, *, us: Claim, alone: bool = False) -> Take | Held:
    """Whether the stack can be taken from the one who has it. `us` is the claim that we would make, signed now.

    Who makes it has the lock of its state folder, so no other process has that install unless the folder was copied:
    a holder of the same install that cannot be seen is gone. `alone`: nobody else's supervisor can be on this engine.
    """
    if is_held_by(claim, us.holder):
        return Take()
    if sight.runs is None:
        return _judge_signature(claim, sight, us=us, alone=alone)
    if sight.runs:
        return Held(sight.text, sight.way_out)
    return Take(f"{sight.text}: taking over its stack")


def _judge_signature(claim: Claim, sight: Sight, *, us: Claim, alone: bool) -> Take | Held:
    if alone or claim.install == us.install:
        return Take(f"{sight.text} left without giving it back: taking over its stack")
    age = (us.signed - claim.signed).total_seconds()
    if abs(age) >= LIVE_SECONDS:  # a clock that far ahead of ours proves nothing either
        return Take(f"{sight.text} has not signed for {LIVE_SECONDS:g} s: taking over its stack")
    return Held(
        f"{sight.text}, which signed {max(0.0, age):.0f} s ago,",
        f"stop that one (after a crash wait {LIVE_SECONDS:g} s)",
    )


class LeaseEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def configs(self) -> resources.Payloads: ...

    @property
    def containers(self) -> resources.Containers: ...

    @property
    def nodes(self) -> resources.Nodes: ...


class Lease:
    """The lease of `owner`'s stack for `holder`; needs an active Swarm that this node manages.

    `alone` says that nobody else's supervisor can be on this engine: we started it ourselves. `tell` gets what people
    should know. A changed install (state taken back) is a new Lease of the same holder, taken once more.
    """

    def __init__(
        self,
        engine: LeaseEngine,
        owner: Owner,
        holder: Holder,
        *,
        alone: bool = False,
        tell: Callable[[str], None] = lambda line: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sign_seconds: float = SIGN_SECONDS,
    ) -> None:
        self.name = lease_name(owner.stack)
        self._engine = engine
        self._owner = owner
        self._holder = holder
        self._alone = alone
        self._tell = tell
        self._clock = clock
        self._sign_seconds = sign_seconds

    async def take(self) -> None:
        """Take it, or make it ours anew. Raises ConfigurationError while another supervisor has it and lives."""
        for _ in range(_TRIES):
            try:
                await self._take()
            except (OutOfSequence, Conflict, NotFound):  # another was quicker: read it again
                await anyio.sleep(random.uniform(0, _JITTER_SECONDS))  # noqa: S311  (spreads tries, guards nothing)
            else:
                return
        raise UnreachableError(
            f"cannot take the lease {self.name!r}: it changed {_TRIES} times meanwhile; "
            f"is something starting supervisors of this stack again and again?"
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Sign it again and again, until cancelled; a container of the engine need not, and returns at once.

        An engine that is away, or cannot do it just now, is asked again. Raises ConfigurationError once another
        supervisor has it.
        """
        task_status.started()
        while not self._holder.container:
            await anyio.sleep(self._sign_seconds)
            with suppress(UnreachableError, EngineRefused):
                await self.sign()

    async def sign(self) -> None:
        """Say once that we live. Raises ConfigurationError where another has it, and what the engine raises."""
        found = await self._read()
        claim = None if found is None else read_claim(found["Spec"].get("Labels"))
        if found is None or claim is None:
            await self.take()
        elif is_held_by(claim, self._holder):
            await self._write(found)
        else:
            raise ConfigurationError(
                f"cannot keep stack {self._owner.stack!r}: {_describe(claim.holder)} has taken it over, as we had not "
                f"signed for {LIVE_SECONDS:g} s; stop one of the two supervisors"
            )

    async def release(self, limit_seconds: float = RELEASE_SECONDS) -> None:
        """Give it back if it is ours; bounded, never raises. The config itself stays, free."""
        with anyio.move_on_after(limit_seconds, shield=True), suppress(SupervisorError):
            found = await self._read()
            claim = None if found is None else read_claim(found["Spec"].get("Labels"))
            if found is not None and claim is not None and is_held_by(claim, self._holder):
                free = names.owned(self._owner.install, self._owner.stack) | {names.LEASE: ""}
                await self._put(found, free)

    async def _take(self) -> None:
        found = await self._read()
        if found is None:
            await self._engine.configs.create(self.name, _DATA, self._claim().labels(self._owner.stack))
            return
        self._require_lease(found)
        match await self._judge(read_claim(found["Spec"].get("Labels"))):
            case Held(why=why, way_out=way_out):
                raise ConfigurationError(
                    f"cannot run a second supervisor of stack {self._owner.stack!r} on this engine: {why} has it; "
                    f"{way_out}, or choose another stack for this one with SUPERVISOR_STACK"
                )
            case Take(said=said):
                await self._write(found)
                if said:
                    self._tell(said)

    async def _judge(self, claimed: Claim | None) -> Take | Held:
        if claimed is None:
            return Take()
        return judge_claim(claimed, await self._look(claimed.holder), us=self._claim(), alone=self._alone)

    def _require_lease(self, found: Mapping[str, Any]) -> None:
        if names.LEASE not in (found["Spec"].get("Labels") or {}):
            raise ConfigurationError(
                f"cannot take the lease of stack {self._owner.stack!r}: there is a Swarm config {self.name!r} that is "
                f"none of a supervisor's; remove it, or choose another stack with SUPERVISOR_STACK"
            )

    def _claim(self) -> Claim:
        return Claim(self._owner.install, self._holder, self._clock())

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self._engine.configs.inspect(self.name)
        except NotFound:
            return None

    async def _write(self, found: Mapping[str, Any]) -> None:
        await self._put(found, self._claim().labels(self._owner.stack))

    async def _put(self, found: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        kept = {name: text for name, text in (found["Spec"].get("Labels") or {}).items() if not _is_ours(name)}
        spec = {**found["Spec"], "Labels": kept | dict(labels)}
        await self._engine.configs.update(str(found["ID"]), int(found["Version"]["Index"]), spec)

    async def _look(self, holder: Holder) -> Sight:
        if not holder.container:
            return Sight(None, _describe(holder))
        if holder.node and self._holder.node and holder.node != self._holder.node:
            return await self._look_at_node(holder)
        try:
            found = await self._engine.containers.inspect(holder.container)
        except NotFound:
            return Sight(False, f"{_describe(holder)}, the former supervisor, is gone")
        return see_container(found)

    async def _look_at_node(self, holder: Holder) -> Sight:
        """A container on another node cannot be inspected from here, but Swarm knows whether its node lives."""
        where = f"{_describe(holder)} on Swarm node {holder.node!r}"
        try:
            ready = (await self._engine.nodes.inspect(holder.node))["Status"].get("State") == "ready"
        except NotFound:
            ready = False
        way_out = f"stop it there (if it is gone, `docker config rm {self.name}`)"
        return Sight(ready, where, way_out) if ready else Sight(False, f"{where}, which is down, was the supervisor")


def see_container(found: Mapping[str, Any]) -> Sight:
    """Of the inspection of a holder's container. A paused one runs, and one between two restarts comes back."""
    state = found["State"]
    name, short = str(found.get("Name", "")).removeprefix("/"), str(found["Id"])[:12]
    if state.get("Running") or state.get("Restarting"):
        since = str(state.get("StartedAt", "?"))
        return Sight(True, f"container {name!r} ({short}, running since {since})", f"stop it (`docker stop {name}`)")
    return Sight(False, f"container {name!r} ({short}), the former supervisor, does not run")


def _describe(holder: Holder) -> str:
    if holder.container:
        return f"container {holder.container[:12]!r} (host name {holder.hostname!r})"
    return f"a supervisor on {holder.hostname!r} ({holder.process})"


def _is_ours(label: str) -> bool:
    return label in (names.INSTALL, names.STACK, names.LEASE) or label.startswith(f"{names.LEASE}.")
