"""The engine as this stack uses it: our own dockerd, connection and events, Swarm and network.

Wiring; imported only where there is an engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import anyio
from anyio.abc import TaskStatus

from supervisor.core.errors import SupervisorError
from supervisor.core.events import Notice, Publish, Warned
from supervisor.core.mode import Mode
from supervisor.core.settings import Settings
from supervisor.engine.address_pool import read_used
from supervisor.engine.client import Engine
from supervisor.engine.connect import endpoint_of
from supervisor.engine.dockerd.config import USUAL_MTU
from supervisor.engine.dockerd.daemon import RECOVERY_SECONDS, START_SECONDS, Dockerd
from supervisor.engine.dockerd.iptables import IptablesBackend
from supervisor.engine.dockerd.network_facts import read_facts
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.preparation import NAME as DOCKERD
from supervisor.engine.dockerd.preparation import SHUTDOWN_SECONDS, DockerdOptions
from supervisor.engine.guard import close_ports
from supervisor.engine.images import ImageResolver
from supervisor.engine.labels import Ownership
from supervisor.engine.network import (
    NetworkSpec,
    OverlayNetwork,
    attach_container,
    ensure_gateway,
    ensure_network,
)
from supervisor.engine.swarm import Membership, RestartPlan, SwarmRoom
from supervisor.engine.swarm_plan import Situation, SwarmInit, SwarmSettings
from supervisor.process.child import Command, RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.engine_backend import EngineBackend
from supervisor.services.engine_hub import EngineHub
from supervisor.services.image_book import ImageBook
from supervisor.services.ownership.memory import Memory
from supervisor.services.spec import ServiceSpec
from supervisor.stack.placement import Placement
from supervisor.stack.tenure import Tenure
from supervisor.state import State

_HUNG_AFTER = 6  # silent for a minute; a busy one answers in seconds


class RestartService(Protocol):
    """Restarts a service of the orchestrator's and returns when it is ready."""

    async def __call__(self, name: str) -> None: ...


@dataclass(frozen=True)
class Ground:
    """What services stand on: the Swarm's node and the stack's network."""

    membership: Membership
    network: OverlayNetwork


class EngineStack:
    """One engine and what the stack has on it. Long-lived: `run`; `ground` before any service is made."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        placement: Placement,
        *,
        state: State,
        reaper: Reaper,
        ring: Ring,
        run_program: RunProgram,
        publish: Publish,
        on_failure: Callable[[SupervisorError], None],
    ) -> None:
        decision = placement.decision
        assert decision is not None
        assert decision.endpoint is not None
        self.settings = settings
        self.placement = placement
        self.decision = decision
        self.state = state
        self.engine = Engine(endpoint_of(decision.endpoint))
        self.hub = EngineHub(self.engine)
        self.backends: list[EngineBackend] = []
        self.restart_service: RestartService | None = None
        self.background: list[Callable[..., Coroutine[Any, Any, None]]] = []
        """Further long-lived parts, by the shape of `run`."""
        self.closed_ports: tuple[int, ...] = ()
        """Ports of this network namespace that only loopback may reach."""
        self._on_failure = on_failure
        self._publish = publish
        self._run_program = run_program
        self._environ = environ
        self.dockerd = self._make_dockerd(environ, reaper, ring) if decision.start_engine else None
        archives = settings.images_dir if settings.images_dir.is_dir() else None
        resolver = ImageResolver(self.engine, folder=archives)
        self.memory = Memory(state.install.facts, save=state.save)
        self.images = ImageBook(self.engine, resolver, self.memory, tell=self.tell)
        self.tenure = Tenure(
            self.engine,
            settings,
            state=state,
            memory=self.memory,
            container=decision.own_container,
            alone=decision.start_engine,
            warn=self.warn,
        )
        self._ground: tuple[int, Ground] | None = None
        self._preparing = anyio.Lock()
        self._told_of_network = False
        self._scope: anyio.CancelScope | None = None
        self._expected = anyio.Event()

    def tell(self, line: str) -> None:
        """A line for people."""
        self._publish(Notice(message=line))

    def warn(self, line: str) -> None:
        """A line that deserves attention."""
        self._publish(Warned(message=line))

    def _make_dockerd(self, environ: Mapping[str, str], reaper: Reaper, ring: Ring) -> Dockerd:
        settings, endpoint = self.settings, self.decision.endpoint
        assert endpoint is not None
        backends = {"nft": IptablesBackend.NFT, "legacy": IptablesBackend.LEGACY}
        options = DockerdOptions(
            places=Places(
                runtime=self.state.paths.runtime, data_root=settings.docker_data_root, socket=Path(endpoint.path)
            ),
            install_uuid=self.state.install.uuid,
            user_config=settings.docker_config,
            iptables=backends.get(settings.docker_iptables),
            allow_layer=settings.allow_layer_data,
        )
        return Dockerd(
            options,
            reaper=reaper,
            ring=ring,
            run=self._run_program,
            environ=environ,
            report=self.tell,
            before_spawn=self._close_ports,
        )

    async def _close_ports(self, environ: Mapping[str, str]) -> None:
        """Before anything listens there: a port that is open for a moment is open."""
        if self.closed_ports:
            await close_ports(self.closed_ports, stack=self.settings.stack, run=self._run_program, environ=environ)

    def dockerd_spec(self) -> ServiceSpec:
        """Our own engine, as a service that all others of it require."""
        assert self.dockerd is not None
        return ServiceSpec(
            name=DOCKERD,
            probe=self.dockerd.probe,
            start_seconds=START_SECONDS,
            recovery_seconds=RECOVERY_SECONDS,
            stop_seconds=SHUTDOWN_SECONDS,
            hung_after=_HUNG_AFTER,
        )

    @property
    def required(self) -> tuple[str, ...]:
        """The services that must be ready before one of the engine's can be started."""
        return () if self.dockerd is None else (DOCKERD,)

    @property
    def failure(self) -> SupervisorError | None:
        """Why our own dockerd did not come up, where that is known."""
        return self.dockerd.failure if self.dockerd is not None else None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Pass events on, watch the services' output, sign the lease; until cancelled."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                for backend in self.backends:
                    self.hub.subscribe(backend.on_event)
                    await group.start(backend.run)
                for part in self.background:
                    await group.start(part)
                group.start_soon(self._connect)
                group.start_soon(self._sign)
                task_status.started()
        finally:
            self.engine.close()

    async def _connect(self) -> None:
        """Not before our own dockerd is up: a client that tried before waits longer each time."""
        await self._expected.wait()
        await self.hub.run()

    async def _sign(self) -> None:
        try:
            await self.tenure.run()
        except SupervisorError as error:
            self._on_failure(error)

    async def ground(self) -> Ground:
        """Engine, Swarm, network, whose they are; made once, and looked at anew after each interruption.

        Raises EngineError, ConfigurationError or UnreachableError.
        """
        self._expected.set()
        await self.hub.wait_up()
        async with self._preparing:
            if self._ground is None or self._ground[0] != self.hub.opened:
                opened = self.hub.opened
                self._ground = opened, await self._prepare()
            return self._ground[1]

    async def _prepare(self) -> Ground:
        if self.dockerd is None:
            await self._close_ports(self._environ)
        mtu = self._unusual_mtu()
        if mtu is not None:
            await ensure_gateway(self.engine, mtu)
        membership = await self._swarm().ensure()
        await self.tenure.settle(membership.node_id)
        network = await ensure_network(self.engine, self._network_spec())
        self._tell_of(network)
        if self.decision.own_container:
            await self._join(network)
        return Ground(membership, network)

    def _tell_of(self, network: OverlayNetwork) -> None:
        """Once in a life."""
        if self._told_of_network:
            return
        self._told_of_network = True
        for note in network.notes:
            self.warn(note)
        if network.owner is not Ownership.OURS:
            self.warn(
                f"network {network.name!r} was not made by this install: whoever else is on it reaches Postgres and "
                f"Redis there, with the password"
            )

    async def leave(self) -> None:
        """At an orderly stop, before our own dockerd is told to end: give the lease back, and end every connection that
        stays open. A dockerd that ends waits 5 s for those (measured with 26.1)."""
        await self.tenure.release()
        if self._scope is not None:
            self._scope.cancel()

    def _swarm(self) -> SwarmRoom:
        settings = self.settings
        own = self.placement.mode is Mode.DIND
        wanted = SwarmSettings(
            init=SwarmInit(settings.swarm_init),
            listen_address=str(settings.swarm_listen_address),
            advertise_address=str(settings.swarm_advertise_address),
            address_pool=settings.swarm_address_pool,
            data_path_port=settings.swarm_data_path_port,
        )
        situation = Situation(
            whose="this container's own engine" if own else "the host's engine", restartable=self.dockerd is not None
        )
        return SwarmRoom(
            self.engine,
            wanted,
            situation,
            used=read_used,
            hands=self if self.dockerd is not None else None,
            tell=self.tell,
        )

    async def restart_engine(self, plan: RestartPlan) -> None:
        """See `EngineHands`."""
        assert self.restart_service is not None
        what = "replace" if plan.present else "delete"
        words = ["ip", "address", what, plan.loopback_address, "dev", "lo"]
        change = Command(name="ip", argv=words, env={"PATH": self._environ.get("PATH", os.defpath)})
        status, said = await self._run_program(change)
        if status:
            raise SupervisorError(f"cannot {what} the address {plan.loopback_address} on loopback: {said}")
        await self.restart_service(DOCKERD)

    def _network_spec(self) -> NetworkSpec:
        name = f"{self.settings.stack}-network"
        return NetworkSpec(name, labels=self.tenure.owner.labels("network"), mtu=self._unusual_mtu())

    def _unusual_mtu(self) -> int | None:
        """That of the way out of this container, where our own engine must be told."""
        mtu = read_facts().mtu if self.dockerd is not None else None
        return None if mtu == USUAL_MTU else mtu

    async def _join(self, network: OverlayNetwork) -> None:
        alias = self.alias
        if await attach_container(self.engine, self.decision.own_container, network, alias):
            self.tell(f"connected our own container to network {network.name!r} as {alias!r}")

    @property
    def alias(self) -> str:
        """The app's name on the stack's network, in socket mode."""
        return self.settings.network_alias or f"{self.settings.stack}-app"
