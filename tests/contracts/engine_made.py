"""The backends of the engine, for the contract tests: the same three programs, run by a real engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from supervisor.engine.client import Endpoint, Engine
from supervisor.engine.events import StreamItem
from supervisor.process.output import Ring
from supervisor.services.backend import Backend
from supervisor.services.container.driver import ContainerDriver, Wanted
from supervisor.services.container.plan import ContainerWish
from supervisor.services.engine_backend import Driver, EngineBackend
from supervisor.services.swarm.driver import SwarmDriver
from supervisor.services.swarm.spec import DataService, HealthCheck, Owner, ServiceBody, service_body
from tests.contracts.plays import Play
from tests.engine_rig.engine import Share

SCRIPTS = {
    Play.SPEAKS: "trap 'exit 143' TERM; echo up; sleep 60 & wait",
    Play.ENDS: "exit 3",
    Play.STUBBORN: "trap '' TERM; echo up; while :; do sleep 0.1; done",
}


def ready_swarm(share: Share) -> None:
    """Make the tests' own engine a Swarm of one; on somebody else's there must be one."""
    state = share.engine.output("info", "--format", "{{.Swarm.LocalNodeState}}")
    if state != "active":
        assert share.engine.private, "the engine is not in a Swarm, and is not ours to change"
        share.engine.run("swarm", "init", "--listen-addr", "127.0.0.1", "--advertise-addr", "127.0.0.1")


@asynccontextmanager
async def swarm_service(share: Share, play: Play) -> AsyncIterator[Backend]:
    """A Swarm service that runs the program."""
    await anyio.to_thread.run_sync(ready_swarm, share)
    network = share.network("net", "--driver", "overlay", "--attachable")
    async with engine_of(share) as engine:
        node = str((await engine.info())["Swarm"]["NodeID"])
        network_id = str((await engine.networks.inspect(network))["Id"])
        image = str((await engine.images.inspect(share.engine.image("base")))["Id"])

        async def wish() -> ServiceBody:
            wanted = DataService(
                name=share.name("thing"),
                owner=Owner("install-1", share.prefix),
                role="thing",
                image=image,
                args=("/bin/sh", "-c", SCRIPTS[play]),
                volume=share.name("data"),
                target="/data",
                network=network_id,
                node=node,
                port=80,
                health=HealthCheck(command="true"),
                stop_signal="SIGTERM",
                stop_seconds=0.2,
            )
            return service_body(wanted, api=await engine.api_version())

        driver = SwarmDriver(share.name("thing"), wish, engine, report=lambda name, plan: None)
        async with running(driver, engine) as backend:
            yield backend


@asynccontextmanager
async def container(share: Share, play: Play) -> AsyncIterator[Backend]:
    """A plain container that runs the program."""
    network = share.network()
    async with engine_of(share) as engine:
        network_id = str((await engine.networks.inspect(network))["Id"])
        wish = ContainerWish(
            name=share.name("thing"),
            owner=Owner("install-1", share.prefix),
            role="thing",
            image=share.engine.image("base"),
            args=("/bin/sh", "-c", SCRIPTS[play]),
            network=network,
            restart="no",
        )

        async def wanted() -> Wanted:
            return Wanted(wish, network_id)

        async def fill(container: str) -> None: ...

        driver = ContainerDriver(wish.name, wanted, engine, fill=fill, report=lambda name, plan: None)
        async with running(driver, engine) as backend:
            yield backend


@asynccontextmanager
async def engine_of(share: Share) -> AsyncIterator[Engine]:
    """The product's client on the tests' engine."""
    engine = Engine(Endpoint(share.engine.host))
    try:
        yield engine
    finally:
        engine.close()


@asynccontextmanager
async def running(driver: Driver, engine: Engine) -> AsyncIterator[EngineBackend]:
    """The backend with the engine's events."""
    backend = EngineBackend(driver, engine, Ring("thing"), look_seconds=60)
    async with engine.events() as items, anyio.create_task_group() as group:
        await group.start(backend.run)
        group.start_soon(_pass_on, items, backend)
        yield backend
        group.cancel_scope.cancel()


async def _pass_on(items: Any, backend: EngineBackend) -> None:
    with contextlib.suppress(anyio.EndOfStream):
        item: StreamItem
        async for item in items:
            backend.on_event(item)
