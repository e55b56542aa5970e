"""Which services there are in the chosen mode, and how the app reaches them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from supervisor.core.errors import SupervisorError
from supervisor.core.events import Publish
from supervisor.core.mode import Mode
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.process.child import Command, RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.restart import RestartPolicy
from supervisor.services.backend import ChildBackend, run_and_quote, run_to_end
from supervisor.services.orchestrator import ServiceOrchestrator
from supervisor.stack.built_in import BuiltIn
from supervisor.stack.placement import Placement
from supervisor.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.services.dump.dump import DatabaseDumps, Programs
    from supervisor.stack.engine import EngineStack

_PREPARE_SECONDS = 120.0
_CHECK_SECONDS = 10.0


class RingSource(Protocol):
    """Gives each source its ring."""

    def ring(self, name: str) -> Ring:
        """The ring of `name`."""
        ...


class Catalog:
    """The built-in services of the mode, and the user's own. An external URL wins: then none is started for it."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        placement: Placement,
        *,
        state: State,
        reaper: Reaper,
        rings: RingSource,
        publish: Publish,
        on_failure: Callable[[SupervisorError], None],
    ) -> None:
        self._settings = settings
        self._on_failure = on_failure
        self._environ = environ
        self._state = state
        self._reaper = reaper
        self._rings = rings
        self._publish = publish
        self.stack: EngineStack | None = None
        self._made = made = self._make(placement)
        self.web = made.web
        self.rotating = made.rotating
        self._take_urls()
        self._dump_programs = made.dump_programs if settings.database_url is None else None
        self._services = made.services
        external = (settings.database_url, settings.redis_url, settings.webhook_url)
        self._secrets = [*made.secrets, *(secret for secret in external if secret is not None)]

    def look_up(self) -> list[Secret]:
        """Take the URLs anew, once a password was changed; gives them."""
        self._made.look_up()
        self._take_urls()
        return [url for url in (self.database_url, self.redis_url, self.admin_url) if url is not None]

    def _take_urls(self) -> None:
        settings, made = self._settings, self._made
        self.database_url = settings.database_url or made.database_url
        self.redis_url = settings.redis_url or made.redis_url
        self.admin_url = made.admin_url if settings.database_url is None else None
        """Of the stack's own database, for its superuser."""

    def _make(self, placement: Placement) -> BuiltIn:
        if placement.mode is Mode.NONE:
            return BuiltIn()
        if placement.mode is Mode.EMBEDDED:
            from supervisor.stack.embedded import EmbeddedServices

            return EmbeddedServices(
                self._settings,
                self._environ,
                placement.services,
                state=self._state,
                reaper=self._reaper,
                ring=self._rings.ring,
                run_program=self._run_program,
                publish=self._publish,
            ).made
        from supervisor.stack.on_engine import EngineServices

        services = EngineServices(
            self._settings,
            self._environ,
            placement,
            state=self._state,
            reaper=self._reaper,
            ring=self._rings.ring,
            run_program=self._run_quietly,
            publish=self._publish,
            on_failure=self._on_failure,
        )
        self.stack = services.stack
        return services.made

    async def _run_program(self, command: Command) -> tuple[int, str]:
        """To its end; gives its status and what it wrote last. Its output is in the log."""
        ring = self._rings.ring(command.name)
        return await run_and_quote(self._reaper, command, ring, limit_seconds=_PREPARE_SECONDS)

    async def _run_quietly(self, command: Command) -> tuple[int, str]:
        """For questions: what iptables says to one is nothing for the log; errors quote it."""
        ring = Ring(command.name)
        return await run_and_quote(self._reaper, command, ring, limit_seconds=_PREPARE_SECONDS)

    def fill(self, orchestrator: ServiceOrchestrator, environ: Mapping[str, str], restart: RestartPolicy) -> None:
        """Hand every service to the orchestrator, with the restart policy of the settings.

        The user's own services get `environ`.
        """
        for spec, backend in self._services:
            orchestrator.add(replace(spec, restart=restart), backend)
        if self._settings.user_services:
            from supervisor.services.user import user_spec

            for name, wanted in self._settings.user_services.items():
                spec, prepare = user_spec(
                    name,
                    wanted,
                    app_dir=self._settings.app_dir,
                    environ=environ,
                    run=self._run_check,
                )
                optional = spec.optional or name in self._settings.optional_services
                essential = name in self._settings.essential_services
                backend = ChildBackend(name, prepare, reaper=self._reaper, ring=self._rings.ring(name))
                orchestrator.add(replace(spec, optional=optional, essential=essential), backend)

    async def _run_check(self, command: Command) -> tuple[int, str]:
        return await run_to_end(self._reaper, command, self._rings.ring(command.name), limit_seconds=_CHECK_SECONDS)

    def dumps(self) -> DatabaseDumps | None:
        """What saves the database; None where there is none. An external one is saved by a pg_dump that is here."""
        from supervisor.services.binaries import find_dump_programs, system_places
        from supervisor.services.dump.dump import DatabaseDumps
        from supervisor.services.dump.local import LocalPrograms

        dsn, settings = self.database_url, self._settings
        if dsn is None:
            return None
        run = self._run_for(settings.release_snapshot_seconds)
        path = self._environ.get("PATH", os.defpath)
        programs: Programs
        if self._dump_programs is not None:
            programs = self._dump_programs(run)
        else:

            def find(major: int) -> Path:
                places = system_places(path)
                return find_dump_programs(settings.postgres_bin_dir, places=places, least_major=major)

            programs = LocalPrograms(dsn, find=find, run=run, path=path)
        return DatabaseDumps(dsn, programs, settings.release_snapshot_seconds)

    def _run_for(self, seconds: float) -> RunProgram:
        """As `_run_quietly`, with time of its own."""

        async def run(command: Command) -> tuple[int, str]:
            return await run_and_quote(self._reaper, command, Ring(command.name), limit_seconds=seconds)

        return run

    def secrets(self) -> list[Secret]:
        """Everything that must never be printed."""
        return list(self._secrets)

    def addresses(self) -> dict[str, str]:
        """Where the proxy answers."""
        return self.web.addresses if self.web is not None else {}
