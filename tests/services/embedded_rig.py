"""Real servers for the tests of the embedded services: a reaper, a state folder a server's user may enter, ports."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from supervisor.core.settings import Settings, build
from supervisor.probe.verdict import Answer, Probe, Verdict
from supervisor.process.child import Child, Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.embedded.postgres import EmbeddedPostgres
from supervisor.services.embedded.redis import EmbeddedRedis
from supervisor.services.embedded.traefik import EmbeddedTraefik
from supervisor.services.ports import RememberedPorts
from supervisor.services.traefik_files import TraefikOptions
from supervisor.store.secrets import SecretFolder

LIMIT_SECONDS = 60.0


def settings_of(**values: object) -> Settings:
    return build(arguments=values).settings


@dataclass
class Rig:
    """One state folder and one reaper; `commands` are all that `run` was asked for."""

    state: Path
    reaper: Reaper
    remembered: dict[str, int] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    on_run: Callable[[Command], None] = lambda _: None

    def __post_init__(self) -> None:
        self.new_boot()
        (self.state / "secrets").mkdir(mode=0o700)
        self.secrets = SecretFolder(self.state / "secrets")

    def new_boot(self) -> None:
        """What a new supervisor on the same state folder knows of the ports."""
        self.ports = RememberedPorts(self.remembered, save=lambda: None, say=self.said.append)

    async def run(self, command: Command) -> tuple[int, str]:
        self.commands.append(command)
        self.on_run(command)
        ring = Ring(command.name)
        child = self.reaper.spawn(command, ring)
        try:
            end = await child.wait()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await child.kill()
            raise
        return end.status, "\n".join(line.text for line in ring.tail(20))

    def spawn(self, command: Command) -> Child:
        return self.reaper.spawn(command, Ring(command.name))

    def postgres(self, **values: object) -> EmbeddedPostgres:
        return EmbeddedPostgres(
            settings_of(**values),
            state_dir=self.state,
            secrets=self.secrets,
            ports=self.ports,
            run=self.run,
            environ=dict(os.environ),
        )

    def redis(self, **values: object) -> EmbeddedRedis:
        return EmbeddedRedis(
            settings_of(**values),
            state_dir=self.state,
            secrets=self.secrets,
            ports=self.ports,
            environ=dict(os.environ),
        )

    def traefik(self, options: TraefikOptions) -> EmbeddedTraefik:
        """A Traefik on exactly these options."""
        server = EmbeddedTraefik(
            settings_of(),
            state_dir=self.state,
            ports=self.ports,
            # No test may reach a real certificate authority.
            environ={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1"},
            report=lambda _: None,
        )
        self.remembered["traefik-ping"] = options.ping_port
        # Settled before it runs: asked for later, its own listener would be taken for a stranger's.
        assert server.ping_port == options.ping_port
        server.options = lambda: options  # type: ignore[method-assign]
        return server


@asynccontextmanager
async def open_rig(*, limit_seconds: float = LIMIT_SECONDS) -> AsyncIterator[Rig]:
    """A rig whose children are all ended, and whose folder is removed, at the end of the block."""
    # Not pytest's own folder: it is 0700, and Postgres runs as another user.
    state = Path(tempfile.mkdtemp(prefix="supervisor-test-"))
    state.chmod(0o711)
    try:
        async with anyio.create_task_group() as group:
            reaper = Reaper()
            await group.start(reaper.run)
            try:
                with anyio.fail_after(limit_seconds):
                    yield Rig(state, reaper)
            finally:
                with anyio.CancelScope(shield=True):
                    await reaper.end_all()
                group.cancel_scope.cancel()
    finally:
        shutil.rmtree(state)


async def answered(probe: Probe, wanted: Answer, *, limit_seconds: float = 20.0) -> Verdict:
    """The first verdict that is `wanted`; fails with the last one after the limit."""
    verdict = await probe()
    with anyio.move_on_after(limit_seconds):
        while verdict.answer is not wanted:
            await anyio.sleep(0.02)
            verdict = await probe()
    assert verdict.answer is wanted, verdict
    return verdict


def text_of(child: Child) -> str:
    return "\n".join(line.text for line in child.ring.tail(1000))
