"""A stack of one object of each kind on the tests' engine, as a run makes them, and its lease."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio

from supervisor.engine.client import Engine
from supervisor.engine.errors import NotFound
from supervisor.services.ownership.lease import Claim, Holder, lease_name
from supervisor.services.swarm.spec import DataService, HealthCheck, Owner, SecretFile, service_body
from tests.contracts.engine_made import engine_of, ready_swarm
from tests.engine_rig.engine import Share

LIMIT_SECONDS = 90
_SLEEP = ("/bin/sh", "-c", "trap 'exit 0' TERM; sleep 600 & wait")  # PID 1 that ends at once when it is stopped


@asynccontextmanager
async def made_stack(share: Share, install: str = "us") -> AsyncIterator[Engine]:
    """One of each kind, as a run makes them: a service with secret, volume and network; a container; a lease."""
    await anyio.to_thread.run_sync(ready_swarm, share)
    stack = share.prefix
    owner, now = Owner(install, stack), datetime.now(UTC)
    async with engine_of(share) as engine:
        node = str((await engine.info())["Swarm"]["NodeID"])
        image = str((await engine.images.inspect(share.engine.image("base")))["Id"])
        network = await engine.networks.create(
            {"Name": f"{stack}-network", "Driver": "overlay", "Attachable": True, "Labels": owner.labels("network")}
        )
        secret = await engine.secrets.create(f"{stack}-postgres-1", b"x", owner.labels("postgres"))
        await engine.configs.create(lease_name(stack), b"x", Claim(install, holder("0" * 64), now).labels(stack))
        wanted = DataService(
            name=f"{stack}-postgres",
            owner=owner,
            role="postgres",
            image=image,
            args=_SLEEP,
            secrets=(SecretFile(f"{stack}-postgres-1", secret, "password"),),
            volume=f"{stack}-postgres",
            target="/data",
            network=network,
            node=node,
            port=80,
            health=HealthCheck(command="true"),
            stop_signal="SIGTERM",
            stop_seconds=5,
        )
        await engine.services.create(service_body(wanted, api=await engine.api_version()))
        await anyio.to_thread.run_sync(start_traefik, share, install)
        with anyio.fail_after(LIMIT_SECONDS):
            while not await task_containers(engine, stack, running=True):
                await anyio.sleep(0.1)
        try:
            yield engine
        finally:
            # The rig knows no configs.
            share.engine.run("config", "rm", lease_name(stack), check=False)


def start_traefik(share: Share, install: str) -> None:
    labels = Owner(install, share.prefix).labels("traefik").items()
    options = [f"--label={name}={value}" for name, value in labels]
    network = f"--network={share.prefix}-network"
    share.start(share.engine.image("base"), *_SLEEP, word="traefik", options=(network, *options))


async def task_containers(engine: Engine, stack: str, *, running: bool = False) -> list[dict[str, object]]:
    filters = {"label": [f"com.docker.swarm.service.name={stack}-postgres"]}
    return await engine.containers.find(filters | ({"status": ["running"]} if running else {}))


def holder(container: str) -> Holder:
    return Holder(container=container, hostname="there", process="1")


@asynccontextmanager
async def leased(share: Share, who: Holder, *, signed: datetime | None = None) -> AsyncIterator[Engine]:
    await anyio.to_thread.run_sync(ready_swarm, share)
    stack = share.prefix
    labels = Claim("us", who, signed or datetime.now(UTC)).labels(stack)
    async with engine_of(share) as engine:
        await engine.configs.create(lease_name(stack), b"x", labels)
        try:
            yield engine
        finally:
            with contextlib.suppress(NotFound):
                await engine.configs.remove(lease_name(stack))
