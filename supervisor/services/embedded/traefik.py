"""Traefik as a child of ours: its ports, its files, its command, its probe."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from supervisor.core.errors import ConfigurationError, PrivilegeError
from supervisor.core.settings import Settings, variable
from supervisor.probe.verdict import Verdict
from supervisor.process.child import Command
from supervisor.process.procfs import describe_port_owner
from supervisor.services.binaries import find_traefik, system_places
from supervisor.services.ports import LOOPBACK, PortBook, bind_error
from supervisor.services.spec import ServiceSpec
from supervisor.services.traefik_files import TraefikOptions, routes_of, write
from supervisor.services.traefik_probe import probe_traefik
from supervisor.store.files import Generated

NAME = "traefik"
STOP_SECONDS = 10.0
_EVERYWHERE = ""
_PASSED_ON = ("TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_PASSED_PREFIXES = ("LEGO_",)


@dataclass(frozen=True)
class EntryPorts:
    """The ports of Traefik's entry points web and websecure."""

    http: int
    https: int


class EmbeddedTraefik:
    """The proxy before the app. Runs as ourselves, so that it may have ports 80 and 443 where we may.

    Its files are in `traefik_dir`, else `<state>/traefik`. `report` is told what became of each generated file.
    Nothing is done before `prepare`, but for trying the ports when they are first asked for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_dir: Path,
        ports: PortBook,
        environ: Mapping[str, str],
        report: Callable[[Generated], None],
    ) -> None:
        self._settings = settings
        self._ports = ports
        self._path = environ.get("PATH", os.defpath)
        self._env = {"PATH": self._path} | passed_on(environ)
        self._report = report
        self.folder = settings.traefik_dir or state_dir / NAME

    @cached_property
    def entry_ports(self) -> EntryPorts:
        """Chosen once: a restart must not move them. Raises ConfigurationError where none can be had."""
        return EntryPorts(
            http=choose_port("http_port", self._settings.http_port, (80, 8080)),
            https=choose_port("https_port", self._settings.https_port, (443, 8443)),
        )

    @property
    def ping_port(self) -> int:
        """Loopback port of `/ping`."""
        return self._ports.port("traefik-ping", 0)

    @property
    def dashboard_port(self) -> int | None:
        """Loopback port of the dashboard, None while it is off."""
        return self._ports.port("traefik-dashboard", 0) if self._settings.traefik_dashboard else None

    def spec(self) -> ServiceSpec:
        """What the orchestrator must know of it."""
        settings = self._settings
        return ServiceSpec(
            name=NAME,
            probe=self.probe,
            port=self.ping_port,
            start_seconds=settings.traefik_start_seconds,
            stop_seconds=STOP_SECONDS,
            optional=NAME in settings.optional_services,
            essential=NAME in settings.essential_services,
        )

    async def probe(self) -> Verdict:
        """See `probe_traefik`."""
        limit = self._settings.watch_timeout_seconds
        return await probe_traefik(
            f"http://{LOOPBACK}:{self.ping_port}", self.options().dynamic_folder, limit_seconds=limit
        )

    def options(self) -> TraefikOptions:
        """What its files are made from."""
        settings = self._settings
        return TraefikOptions(
            folder=self.folder,
            stack=settings.stack,
            routes=routes_of(settings, LOOPBACK),
            http_port=self.entry_ports.http,
            https_port=self.entry_ports.https,
            ping_port=self.ping_port,
            dashboard_port=self.dashboard_port,
            acme_email=settings.acme_email,
            cert_file=settings.tls_cert_file,
            key_file=settings.tls_key_file,
        )

    async def prepare(self) -> Command:
        """See `Prepare`; milliseconds."""
        binary = find_traefik(self._settings.traefik_binary, places=system_places(self._path))
        options = self.options()
        for generated in write(options):
            self._report(generated)
        return Command(
            name=NAME,
            argv=[str(binary), f"--configFile={options.static_file}"],
            env=self._env,
            cwd="/",
            umask=0o077,
        )


def passed_on(environ: Mapping[str, str]) -> dict[str, str]:
    """What Traefik gets of our environment: how to reach a certificate authority, nothing of the app's."""
    names = {name for name in environ if name.upper() in _PASSED_ON or name.startswith(_PASSED_PREFIXES)}
    return {name: environ[name] for name in sorted(names)}


def choose_port(field: str, given: int | None, candidates: tuple[int, int]) -> int:
    """The given port, or the first candidate we can listen on; really tried, so every kind of refusal counts."""
    if given is not None:
        reason = bind_error(given, _EVERYWHERE)
        if reason:
            raise _unavailable(field, given, reason)
        return given
    reasons = {}
    for port in candidates:
        reasons[port] = bind_error(port, _EVERYWHERE)
        if not reasons[port]:
            return port
    held = " and ".join(f"{port} {_why(port, reason)}" for port, reason in reasons.items())
    raise ConfigurationError(
        f"cannot open Traefik's entry point: port {held}; stop what holds it, or set {variable(field)} to a free port"
    )


def _unavailable(field: str, port: int, reason: int) -> ConfigurationError | PrivilegeError:
    text = f"cannot open Traefik's entry point: {variable(field)} is {port}, and port {port} {_why(port, reason)}"
    if reason == errno.EADDRINUSE:
        return ConfigurationError(f"{text}; stop that, or choose another port")
    return PrivilegeError(
        f"{text}; choose a port from 1024 on, or lower net.ipv4.ip_unprivileged_port_start, or run as root"
    )


def _why(port: int, reason: int) -> str:
    if reason == errno.EADDRINUSE:
        return f"is taken by {describe_port_owner(port)}"
    if reason in (errno.EACCES, errno.EPERM):
        return "needs a privilege we do not have"
    return f"cannot be had ({os.strerror(reason).lower()})"
