"""The fronts of all apps: which kind each gets, opened before anything slow, closed last. Wiring."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
from anyio.abc import TaskStatus

from supervisor.app.front.choice import choose_front
from supervisor.app.front.haproxy.binary import find_haproxy
from supervisor.app.front.haproxy.config import PRIVATE_NETWORKS, AppFront, FrontLimits
from supervisor.app.front.haproxy.front import ProxyFront
from supervisor.app.front.haproxy.process import NAME, HAProxy, HAProxyOptions, unprivileged
from supervisor.app.front.holder import Holder
from supervisor.app.front.model import PROMISES, Front, FrontKind, Holding, Wire
from supervisor.app.front.ports import PortPool, listen
from supervisor.app.front.restart import RestartFront
from supervisor.boot_page import BootPage
from supervisor.core.events import FrontChosen, Publish, Warned
from supervisor.core.groups import plain_errors
from supervisor.core.settings import Settings
from supervisor.process.account import lacking_rights
from supervisor.process.child import Command, Identity
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import run_and_quote
from supervisor.services.embedded.access import blocked_path
from supervisor.state import State
from supervisor.store.files import make_folder

_CHECK_SECONDS = 10.0
_MOST_THREADS = 4


def trusted_networks(words: Sequence[str]) -> tuple[str, ...]:
    """Networks of the setting; `private` stands for loopback and all private ones, `none` for no one."""
    named = {"private": PRIVATE_NETWORKS, "none": ()}
    return tuple(network for word in words for network in named.get(word, (word,)))


def _nobody(holding: Holding) -> None:
    """Of plain TCP nobody can be told anything."""


def _limits(settings: Settings) -> FrontLimits:
    return FrontLimits(
        hold_seconds=settings.hold_seconds,
        idle_seconds=settings.front_idle_seconds,
        request_seconds=settings.front_head_seconds,
        keep_alive_seconds=settings.front_keep_alive_seconds,
        tunnel_seconds=settings.front_tunnel_seconds,
        max_connections=settings.front_connections,
    )


class Fronts:
    """Raises ConfigurationError or PrivilegeError where a public port, or a front asked for by name, cannot be had."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        *,
        apps: Sequence[str],
        state: State,
        reaper: Reaper,
        ring: Callable[[str], Ring],
        publish: Publish,
        redact: Callable[[str], str],
    ) -> None:
        self._settings = settings
        self._path = environ.get("PATH", os.defpath)
        self._state = state
        self._reaper = reaper
        self._ring = ring
        self._publish = publish
        self._redact = redact
        self.choice = choose_front(settings.front, find_haproxy(settings.haproxy_binary, self._path))
        self._listeners: list[socket.socket] = []  # they stay open for the life of the process
        self._holders: dict[str, Holder] = {}
        self._haproxy: HAProxy | None = None
        self._fronts: dict[str, Front] = {}
        self.page = BootPage(self._tell_all)
        if self.choice.kind is FrontKind.PROXY:
            self._make_proxies(apps)
        else:
            self._make_restarts(apps)

    def front(self, app: str) -> Front:
        """The front of one app."""
        return self._fronts[app]

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Open all; requests get the boot page from then on, where the kind has one."""
        with plain_errors():
            await self._run(task_status)

    async def _run(self, task_status: TaskStatus[None]) -> None:
        async with anyio.create_task_group() as group:
            for holder in self._holders.values():
                await group.start(holder.run)
            if self._haproxy is not None:
                await group.start(self._haproxy.run)
            for front in self._fronts.values():
                if isinstance(front, RestartFront):
                    await group.start(front.run)
            self._announce()
            task_status.started()

    def _announce(self) -> None:
        choice = self.choice
        for app in self._fronts:
            self._publish(
                FrontChosen(
                    app=app,
                    kind=choice.kind.value,
                    reason=choice.reason,
                    lossy=choice.lossy,
                    promises=dict(PROMISES[choice.kind]),
                )
            )
        if choice.lossy and self._settings.front == "auto":
            self._publish(Warned(message=f"the front is `{choice.kind.value}`: {choice.lossy}"))

    def _tell_all(self, holding: Holding) -> None:
        for app in self._holders:
            self._tell(app, holding)

    def _tell(self, app: str, holding: Holding) -> None:
        self._holders[app].tell(replace(holding, reason=self._redact(holding.reason)))

    def _make_restarts(self, apps: Sequence[str]) -> None:
        for app in apps:
            settings = self._settings.for_app(app)
            self._fronts[app] = RestartFront(
                app, settings.port, in_use=settings.app_health != "none", redact=self._redact
            )

    def _make_proxies(self, apps: Sequence[str]) -> None:
        folder = self._state.paths.runtime / "front"
        make_folder(folder, mode=0o711)
        identity = self._identity(folder)
        owner = (identity.uid, identity.gid) if identity is not None else None
        specs: list[AppFront] = []
        for app in apps:
            settings = self._settings.for_app(app)
            listeners = listen(settings.port)
            self._listeners += listeners
            path = folder / f"{app}.sock"
            wire = Wire(settings.app_protocol)
            if wire is not Wire.TCP:
                self._holders[app] = Holder.on_unix(app, path, owner=owner)
            specs.append(
                AppFront(
                    name=app,
                    public_port=settings.port,
                    public_fds=tuple(listener.fileno() for listener in listeners),
                    wire=wire,
                    hold_socket=str(path) if app in self._holders else "",
                    limits=_limits(settings),
                    trusted=trusted_networks(settings.trusted_proxies),
                )
            )
        self._haproxy = HAProxy(
            specs,
            options=HAProxyOptions(
                folder=folder / NAME,
                identity=identity,
                binary=self.choice.binary,
                threads=min(_MOST_THREADS, os.cpu_count() or 1),
            ),
            reaper=self._reaper,
            ring=self._ring(NAME),
            run=self._run_program,
            publish=self._publish,
        )
        low, high = (int(word) for word in self._settings.app_ports.split("-"))
        ports = PortPool(low, high, begin=secrets.randbelow(high - low + 1))
        for app in apps:
            self._fronts[app] = ProxyFront(
                self._haproxy, app, ports=ports, tell=partial(self._tell, app) if app in self._holders else _nobody
            )

    def _identity(self, folder: Path) -> Identity | None:
        """Whom HAProxy becomes. Where that user could not get at its folder it stays what we are, and that is told."""
        identity = unprivileged()
        if identity is None and os.geteuid() == 0 and (lacking := lacking_rights()):
            self._publish(
                Warned(
                    message=f"HAProxy runs as root: root lacks {', '.join(lacking)} here to run it as another",
                    detail="give the container these capabilities (--cap-add), or run it with --user",
                )
            )
        blocked = blocked_path(folder, identity) if identity is not None else ""
        if not blocked:
            return identity
        self._publish(
            Warned(
                message=f"HAProxy runs as root: {blocked}",
                detail="set SUPERVISOR_RUNTIME_DIR to a folder that every user may pass through, like /run/supervisor",
            )
        )
        return None

    async def _run_program(self, command: Command) -> tuple[int, str]:
        return await run_and_quote(self._reaper, command, Ring(command.name), limit_seconds=_CHECK_SECONDS)
