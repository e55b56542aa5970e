"""The engine as this stack uses it: our own dockerd, connection and events, Swarm and network, and whose it all is.

Wiring; imported only where there is an engine.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
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
from supervisor.placement import Placement
from supervisor.process import procfs
from supervisor.process.child import Command, RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.adoption import Adoption, keep_redis_data, plan_adoption, rescue_acme, survey
from supervisor.services.engine_backend import EngineBackend
from supervisor.services.engine_hub import EngineHub
from supervisor.services.image_book import ImageBook
from supervisor.services.lease import Holder, Lease
from supervisor.services.passwords import drop_old_secrets
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm.data import RESET
from supervisor.services.swarm.spec import Owner
from supervisor.state import State
from supervisor.store.files import write_atomic

_USED = "engine.used"
_HUNG_AFTER = 6  # silent for a minute; a busy one answers in seconds
_RELEASE_SECONDS = 1.0  # of the few that a stop has


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
        self.images = ImageBook(self.engine, resolver, state.install.facts, save=state.save, tell=self.tell)
        self._ground: tuple[int, Ground] | None = None
        self._preparing = anyio.Lock()
        self.secrets_in_use: set[str] = set()
        self._adoption = Adoption()
        self._settled = False
        self._grounds = 0
        self._lease: Lease | None = None
        self._leased = anyio.Event()
        self._scope: anyio.CancelScope | None = None
        self._expected = anyio.Event()

    def tell(self, line: str) -> None:
        """A line for people."""
        self._publish(Notice(message=line))

    def warn(self, line: str) -> None:
        """A line that deserves attention."""
        self._publish(Warned(message=line))

    @property
    def owner(self) -> Owner:
        """Whose our things on the engine are."""
        return Owner(self.state.install.owner, self.settings.stack)

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
        await self._leased.wait()
        assert self._lease is not None
        try:
            await self._lease.run()
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
        await self._settle_ownership(membership)
        network = await ensure_network(self.engine, self._network_spec())
        for note in network.notes:
            self.warn(note)
        if network.owner is not Ownership.OURS and self._grounds == 0:
            self.warn(
                f"network {network.name!r} was not made by this install: whoever else is on it reaches Postgres and "
                f"Redis there, with the password"
            )
        self._grounds += 1
        if self.decision.own_container:
            await self._join(network)
        return Ground(membership, network)

    async def _settle_ownership(self, membership: Membership) -> None:
        """Once in a life: the stack's lease, and what became of things that were there before us."""
        if self._settled:
            return
        await self._take_lease(membership)
        facts = self.state.install.facts
        found = await survey(self.engine, self.settings.stack)
        if facts.get("volume.postgres", f"{self.settings.stack}-postgres").partition(" ")[0] not in found.volumes:
            facts.pop("postgres.major", None)  # the data is gone, and with it what was known of it
        adoption = plan_adoption(
            found,
            self.owner,
            fresh=_USED not in facts,
            adopt=self.settings.adopt,
            known_volumes=[fact.partition(" ")[0] for key, fact in facts.items() if key.startswith("volume.")],
        )
        for line in adoption.said:
            self.warn(line)
        await self._take_over(adoption)
        if adoption.install:
            await self._take_lease(membership)  # by the name that the install has from now on
        self._adoption = adoption
        self._settled = True
        self._leased.set()

    async def _take_lease(self, membership: Membership) -> None:
        us = procfs.read_stat(os.getpid())
        holder = Holder(
            container=self.decision.own_container,
            hostname=socket.gethostname(),
            process=f"pid {os.getpid()}, started at tick {us.start_ticks if us else 0} of boot {procfs.boot_id()}",
            node=membership.node_id,
        )
        # On an engine that we have just started nobody else can live; one that comes later finds the lease taken.
        self._lease = Lease(self.engine, self.owner, holder, alone=self.dockerd is not None, tell=self.warn)
        await self._lease.take()

    async def _take_over(self, adoption: Adoption) -> None:
        """Nothing is changed on the engine before it is written down what it shall become: a kill in between only
        makes the next boot do it again."""
        if adoption.snapshot:
            await keep_redis_data(self.engine, adoption.snapshot)
        if adoption.replaced:
            certificates = await rescue_acme(self.engine, adoption.replaced)
            if certificates is not None:
                write_atomic(self.rescued_certificates, certificates.decode())
        install = self.state.install
        if adoption.install:
            install.owner = adoption.install
        install.facts |= {f"volume.{role}": f"{each.name} {each.target}" for role, each in adoption.volumes.items()}
        install.facts |= {f"wanted.{role}": image for role, image in adoption.images.items()}
        if adoption.set_passwords or self.settings.adopt:
            install.facts["postgres.password"] = RESET
        install.facts[_USED] = "1"
        self.state.save()
        if adoption.replaced:
            await self.engine.containers.remove(adoption.replaced, force=True)

    @property
    def rescued_certificates(self) -> Path:
        """Those of a Traefik that ours replaces, until ours has them."""
        return self.state.paths.state / "rescued-acme.json"

    def adopts(self, stored: dict[str, Any]) -> bool:
        """Whether a service without our labels may be taken over."""
        return self._adoption.covers(stored)

    async def tidy(self) -> None:
        """Once everything runs: secrets that nothing uses any more go. Never raises."""
        with suppress(SupervisorError):
            await drop_old_secrets(self.engine, self.owner, self.secrets_in_use)

    async def leave(self) -> None:
        """At an orderly stop, before our own dockerd is told to end: another supervisor may have the stack.

        Ends every connection that stays open: a dockerd that ends waits 5 s for those (measured with 26.1).
        """
        if self._lease is not None:
            await self._lease.release(_RELEASE_SECONDS)
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
        words = ["ip", "address", "replace", plan.loopback_address, "dev", "lo"]
        add = Command(name="ip", argv=words, env={"PATH": self._environ.get("PATH", os.defpath)})
        status, said = await self._run_program(add)
        if status:
            raise SupervisorError(f"cannot give loopback the address {plan.loopback_address}: {said}")
        await self.restart_service(DOCKERD)

    def _network_spec(self) -> NetworkSpec:
        name = f"{self.settings.stack}-network"
        return NetworkSpec(name, labels=self.owner.labels("network"), mtu=self._unusual_mtu())

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
