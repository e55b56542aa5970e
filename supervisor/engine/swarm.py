"""Having a Swarm to run services in: used, begun, waited for, repaired after a change of address, or refused.

Never leaves a Swarm, never asks for an unlock key, never demotes or promotes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Any, Protocol

import anyio

from supervisor.core.errors import ConfigurationError, SupervisorError, UnreachableError
from supervisor.engine import resources
from supervisor.engine.address_pool import free_pool, network_ranges
from supervisor.engine.errors import EngineRefused, Unavailable
from supervisor.engine.swarm_plan import (
    PENDING_SECONDS,
    Initialise,
    Refuse,
    RepairAddress,
    Situation,
    SwarmFacts,
    SwarmSettings,
    Use,
    Wait,
    init_request,
    lost_address,
    opened_by_init,
    plan_swarm,
)

RESTART_SECONDS = 60.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class RestartPlan:
    """Restart the engine with an address (`/32`) on `lo`, or without it.

    With a lost address there its Swarm's listener binds again, so that another can be written down.
    """

    loopback_address: str
    present: bool = True


class EngineHands(Protocol):
    """What only the owner of the engine can do."""

    async def restart_engine(self, plan: RestartPlan) -> None:
        """Carry out the plan; returns when the new engine was started, ready or not."""


class SwarmEngine(Protocol):
    """The part of `Engine` that is used here."""

    @property
    def swarm(self) -> resources.Swarm: ...

    @property
    def networks(self) -> resources.Networks: ...

    async def info(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Membership:
    """The Swarm in use. `initialised` and `repaired` say what was done to get there; to be recorded."""

    node_id: str
    node_address: str
    initialised: bool = False
    repaired: bool = False


@dataclass
class _Done:
    """What has been tried so far."""

    waited: bool = False
    initialised: bool = False
    repaired: bool = False
    failure: SupervisorError | None = None


class SwarmRoom:
    """Gets to a usable Swarm. Safe to call at every boot, and beside another that does the same.

    `used` gives the ranges that its networks must not overlap, beside those of the engine's own networks. `tell` gets
    lines for people: what was done, and what that opened.
    """

    def __init__(
        self,
        engine: SwarmEngine,
        settings: SwarmSettings,
        situation: Situation,
        *,
        used: Callable[[], Iterable[IPv4Network]] = tuple,
        hands: EngineHands | None = None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._situation = situation
        self._used = used
        self._hands = hands
        self._tell = tell

    async def ensure(self) -> Membership:
        """Return when services can be created.

        Raises EngineError (E18, E19, E20), ConfigurationError or UnreachableError with the way out.
        """
        done = _Done()
        while True:
            action = plan_swarm(await self._facts(), self._settings, self._situation, waited=done.waited)
            match action:
                case Use():
                    return self._membership(action, done)
                case Refuse(error=error):
                    raise error
                case Wait(reason=reason):
                    self._tell(f"waiting for the Swarm on {self._situation.whose}: {reason}")
                    await self._until(self._is_decided, PENDING_SECONDS)
                    done.waited = True
                case Initialise():
                    await self._initialise(done)
                case RepairAddress(address=address):
                    await self._repair(address, done)

    async def _facts(self) -> SwarmFacts:
        return SwarmFacts.parse(await self._engine.info())

    def _membership(self, use: Use, done: _Done) -> Membership:
        if use.warning:
            self._tell(use.warning)
        return Membership(use.node_id, use.node_address, done.initialised and done.failure is None, done.repaired)

    async def _until(self, condition: Callable[[], Awaitable[bool]], limit_seconds: float) -> bool:
        """Ask until it holds, or the limit has passed; the engine tells no one when its Swarm's state changes."""
        with anyio.move_on_after(limit_seconds):
            while True:
                if await condition():
                    return True
                await anyio.sleep(_POLL_SECONDS)
        return False

    async def _is_decided(self) -> bool:
        """Whether it is no longer pending; an engine that is starting is waited for."""
        try:
            return (await self._facts()).state != "pending"
        except Unavailable:
            return False

    async def _initialise(self, done: _Done) -> None:
        """Ask once. A refusal counts only when the node is still outside: another may have begun it just now."""
        if done.initialised:
            raise done.failure or UnreachableError(
                f"cannot use Swarm on {self._situation.whose}: it was begun and is gone; does another leave it?"
            )
        pool = await self._pool()
        done.initialised = True
        try:
            await self._engine.swarm.init(init_request(self._settings, pool))
        except EngineRefused as error:
            done.failure = UnreachableError(
                f"cannot initialise Swarm on {self._situation.whose}: {error.message}; "
                "are ports 2377 and 7946 free, and is the advertise address one of that machine's?"
            )
        else:
            self._tell(opened_by_init(self._settings, self._situation, pool))

    async def _pool(self) -> IPv4Network:
        if self._settings.address_pool is not None:
            return self._settings.address_pool
        used = {*self._used(), *network_ranges(await self._engine.networks.find())}
        pool = free_pool(used)
        if pool is None:
            raise ConfigurationError(
                f"cannot initialise Swarm on {self._situation.whose}: no /16 of the private ranges is free of its "
                "routes and networks; name a free range with SWARM_ADDRESS_POOL"
            )
        return pool

    async def _repair(self, address: str, done: _Done) -> None:
        """Give the address back, restart, and have the Swarm write down another; services stay as they are."""
        if self._hands is None or done.repaired:
            raise lost_address(address, self._situation)
        done.repaired = True
        self._tell(f"the Swarm was bound to {address}, which is gone: repairing it, services stay as they are")
        await self._hands.restart_engine(RestartPlan(f"{address}/32"))
        if not await self._until(self._is_usable, RESTART_SECONDS):
            raise lost_address(address, self._situation)
        request = init_request(self._settings, None) | {"ForceNewCluster": True}
        try:
            await self._engine.swarm.init(request)
        except EngineRefused as error:
            raise UnreachableError(f"{lost_address(address, self._situation)} (tried here: {error.message})") from error
        await self._until(self._is_decided, PENDING_SECONDS)
        # Now and then the engine's network agent does not come up again after a forced new cluster: the Swarm says
        # active, and every task on an overlay is refused for good ("when swarm is not active"). A start brings it up.
        await self._hands.restart_engine(RestartPlan(f"{address}/32", present=False))
        if not await self._until(self._is_usable, RESTART_SECONDS):
            raise lost_address(address, self._situation)

    async def _is_usable(self) -> bool:
        try:
            return (await self._facts()).usable
        except (Unavailable, EngineRefused):
            return False
