"""Which services there are in the chosen mode, and how the app reaches them. Wiring.

The servers' own modules are imported when they are used: beside one app alone neither asyncpg nor
redis is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from supervisor.app_environment import AppEnvironment
from supervisor.core.events import FileKept, Notice, Publish
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.restart import RestartPolicy
from supervisor.services.backend import ChildBackend, run_to_end
from supervisor.services.orchestrator import ServiceOrchestrator
from supervisor.services.spec import Prepare, ServiceSpec
from supervisor.state import State
from supervisor.store.files import Generated, Written

if TYPE_CHECKING:
    from supervisor.services.embedded.traefik import EmbeddedTraefik

_PREPARE_SECONDS = 120.0
_CHECK_SECONDS = 10.0


class RingSource(Protocol):
    """Gives each source its ring."""

    def ring(self, name: str) -> Ring:
        """The ring of `name`."""
        ...


class Catalog:
    """The built-in services of embedded mode, and the user's own. An external URL wins: then none is started for it."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        state: State,
        reaper: Reaper,
        rings: RingSource,
        publish: Publish,
        mode: str,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._state = state
        self._reaper = reaper
        self._rings = rings
        self._publish = publish
        self._specs: list[tuple[ServiceSpec, Prepare]] = []
        self._secrets: list[Secret] = []
        self.database_url = settings.database_url
        self.redis_url = settings.redis_url
        self.traefik: EmbeddedTraefik | None = None
        if mode == "embedded":
            self._add_embedded()
        for external in (settings.database_url, settings.redis_url, settings.webhook_url):
            if external is not None:
                self._secrets.append(external)

    def _add_embedded(self) -> None:
        from supervisor.services.ports import RememberedPorts

        settings, state_dir = self._settings, self._state.paths.state
        ports = RememberedPorts(
            self._state.install.ports,
            save=self._state.save,
            say=lambda text: self._publish(Notice(message=text)),
        )
        if "postgres" in settings.services and self.database_url is None:
            from supervisor.services.embedded.postgres import EmbeddedPostgres

            postgres = EmbeddedPostgres(
                settings,
                state_dir=state_dir,
                secrets=self._state.secrets,
                ports=ports,
                run=self._run_prepare,
                environ=self._environ,
            )
            self._specs.append((postgres.spec(), postgres.prepare))
            self.database_url = postgres.dsn
            self._secrets.append(postgres.dsn)
        if "redis" in settings.services and self.redis_url is None:
            from supervisor.services.embedded.redis import EmbeddedRedis

            redis = EmbeddedRedis(
                settings, state_dir=state_dir, secrets=self._state.secrets, ports=ports, environ=self._environ
            )
            self._specs.append((redis.spec(), redis.prepare))
            self.redis_url = redis.url
            self._secrets.append(redis.url)
        if "traefik" in settings.services:
            from supervisor.services.embedded.traefik import EmbeddedTraefik

            self.traefik = EmbeddedTraefik(
                settings,
                state_dir=state_dir,
                upstream_port=settings.port,
                ports=ports,
                environ=self._environ,
                report=self._generated,
            )
            self._specs.append((self.traefik.spec(), self.traefik.prepare))

    async def _run_prepare(self, command: Command) -> tuple[int, str]:
        ring = self._rings.ring(command.name)
        before = ring.number
        status, last = await run_to_end(self._reaper, command, ring, limit_seconds=_PREPARE_SECONDS)
        lines = [line.text for line in ring.since(before)][-20:]
        return status, "\n".join(lines) or last

    def _generated(self, file: Generated) -> None:
        if file.result is Written.KEPT:
            self._publish(FileKept(path=str(file.path), difference=file.difference))

    def fill(self, orchestrator: ServiceOrchestrator, environment: AppEnvironment, restart: RestartPolicy) -> None:
        """Hand every service to the orchestrator, with the restart policy of the settings."""
        from dataclasses import replace

        for spec, prepare in self._specs:
            self._add(orchestrator, replace(spec, restart=restart), prepare)
        if self._settings.user_services:
            from supervisor.services.user import user_spec

            for name, wanted in self._settings.user_services.items():
                spec, prepare = user_spec(
                    name,
                    wanted,
                    app_dir=self._settings.app_dir,
                    environ=environment.base,
                    run=self._run_check,
                )
                optional = spec.optional or name in self._settings.optional_services
                essential = name in self._settings.essential_services
                self._add(orchestrator, replace(spec, optional=optional, essential=essential), prepare)

    def _add(self, orchestrator: ServiceOrchestrator, spec: ServiceSpec, prepare: Prepare) -> None:
        backend = ChildBackend(spec.name, prepare, reaper=self._reaper, ring=self._rings.ring(spec.name))
        orchestrator.add(spec, backend)

    async def _run_check(self, command: Command) -> tuple[int, str]:
        return await run_to_end(self._reaper, command, self._rings.ring(command.name), limit_seconds=_CHECK_SECONDS)

    def secrets(self) -> list[Secret]:
        """Everything that must never be printed."""
        return list(self._secrets)

    @property
    def web_port(self) -> int | None:
        """Traefik's web entry point; None without Traefik."""
        return self.traefik.entry_ports.http if self.traefik is not None else None

    def addresses(self) -> dict[str, str]:
        """Where the proxy answers."""
        if self.traefik is None:
            return {}
        host = self._settings.app_host or "127.0.0.1"
        return {
            "traefik_http": f"http://{host}:{self.traefik.entry_ports.http}",
            "traefik_https": f"https://{host}:{self.traefik.entry_ports.https}",
        }
