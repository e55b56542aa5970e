"""Whose the stack on an engine is: its lease, what was there before us, and its secrets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

from supervisor.core.errors import SupervisorError
from supervisor.core.settings import Settings
from supervisor.engine.client import Engine
from supervisor.process import procfs
from supervisor.services.ownership.adoption import Adoption, plan_adoption
from supervisor.services.ownership.handover import keep_redis_data, rescue_acme
from supervisor.services.ownership.lease import Holder, Lease
from supervisor.services.ownership.memory import Memory
from supervisor.services.ownership.passwords import drop_old_secrets, ensure_secret
from supervisor.services.ownership.survey import survey
from supervisor.services.swarm.spec import Owner, SecretFile
from supervisor.state import State
from supervisor.store.files import write_atomic

_RELEASE_SECONDS = 1.0  # of the few that a stop has


class Tenure:
    """Settled once in a life, before anything of the stack is made; `run` signs the lease from then on.

    `container` is our own on this very engine, empty where it is none of it. `alone`: nobody else's supervisor can be
    on an engine that we have just started; one that comes later finds the lease taken. `warn` gets lines for people.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        *,
        state: State,
        memory: Memory,
        container: str,
        alone: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._state = state
        self._memory = memory
        self._container = container
        self._alone = alone
        self._warn = warn
        self._adoption = Adoption()
        self._lease: Lease | None = None
        self._settled = anyio.Event()
        self._secrets: set[str] = set()

    @property
    def owner(self) -> Owner:
        """Whose our things on the engine are."""
        return Owner(self._state.install.owner, self._settings.stack)

    async def settle(self, node: str) -> None:
        """Take the lease, and decide what becomes of things that were there before us. `node` is the Swarm's.

        Raises ConfigurationError for what is somebody else's.
        """
        if self._settled.is_set():
            return
        await self._take_lease(node)
        found = await survey(self._engine, self._settings.stack)
        known = self._memory.volume("postgres")
        if (known.name if known is not None else f"{self._settings.stack}-postgres") not in found.volumes:
            self._memory.keep_postgres_major(None)  # the data is gone, and with it what was known of it
        adoption = plan_adoption(
            found,
            self.owner,
            fresh=self._memory.is_fresh,
            adopt=self._settings.adopt,
            known_volumes=self._memory.volumes,
        )
        for line in adoption.said:
            self._warn(line)
        await self._take_over(adoption)
        if adoption.install:
            await self._take_lease(node)  # by the name that the install has from now on
        self._adoption = adoption
        self._settled.set()

    async def _take_lease(self, node: str) -> None:
        us = procfs.read_stat(os.getpid())
        holder = Holder(
            container=self._container,
            hostname=socket.gethostname(),
            process=f"pid {os.getpid()}, started at tick {us.start_ticks if us else 0} of boot {procfs.boot_id()}",
            node=node,
        )
        self._lease = Lease(self._engine, self.owner, holder, alone=self._alone, tell=self._warn)
        await self._lease.take()

    async def _take_over(self, adoption: Adoption) -> None:
        """Nothing of others is changed before it is written down what it shall become: a kill in between only makes the
        next boot do it again."""
        if adoption.snapshot:
            await keep_redis_data(self._engine, adoption.snapshot)
        if adoption.replaced:
            certificates = await rescue_acme(self._engine, adoption.replaced)
            if certificates is not None:
                write_atomic(self.rescued_certificates, certificates.decode())
        if adoption.install:
            self._state.install.owner = adoption.install
        self._memory.take_over(adoption, set_password=adoption.set_passwords or self._settings.adopt)
        if adoption.replaced:
            await self._engine.containers.remove(adoption.replaced, force=True)

    @property
    def rescued_certificates(self) -> Path:
        """Those of a Traefik that ours replaces, until ours has them."""
        return self._state.paths.state / "rescued-acme.json"

    def adopts(self, stored: dict[str, Any]) -> bool:
        """Whether a service without our labels may be taken over."""
        return self._adoption.covers(stored)

    async def run(self) -> None:
        """Sign the lease until cancelled. Raises ConfigurationError once another supervisor has it."""
        await self._settled.wait()
        assert self._lease is not None
        await self._lease.run()

    async def release(self) -> None:
        """At an orderly stop: another supervisor may have the stack. Bounded, never raises."""
        if self._lease is not None:
            await self._lease.release(_RELEASE_SECONDS)

    async def keep_secret(self, role: str, file: str, data: bytes) -> SecretFile:
        """The Swarm secret with this content, made where there is none."""
        secret = await ensure_secret(self._engine, self.owner, role, file, data)
        self._secrets.add(secret.name)
        return secret

    async def tidy(self) -> None:
        """Once everything runs: secrets that nothing uses any more go. Never raises."""
        with suppress(SupervisorError):
            await drop_old_secrets(self._engine, self.owner, self._secrets)
