"""Services of the user's own, from `[services.NAME]` in supervisor.toml: as supervised as the built-in ones."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import UserService
from supervisor.probe.exec import probe_exec
from supervisor.probe.http import Target, probe_http
from supervisor.probe.tcp import probe_tcp
from supervisor.probe.verdict import Probe, Verdict, good
from supervisor.process.child import Command, RunProgram
from supervisor.process.restart import RestartMode, RestartPolicy
from supervisor.services.spec import Prepare, ServiceSpec

_HERE = ("localhost", "127.0.0.1", "::1")


def user_spec(
    name: str, service: UserService, *, app_dir: Path, environ: Mapping[str, str], run: RunProgram
) -> tuple[ServiceSpec, Prepare]:
    """What the orchestrator needs for it. `environ` is what it inherits. Raises ConfigurationError for a bad check.

    Without a health check it is ready as soon as it runs.
    """
    command = Command(
        name=name,
        argv=service.command,
        env={**environ, **service.env},
        cwd=str(service.cwd or app_dir),
        stop_signal=signal.Signals[f"SIG{service.stop_signal}"],
    )
    probe, port = _check_of(name, service, command, run)
    spec = ServiceSpec(
        name=name,
        probe=probe,
        port=port,
        requires=service.requires,
        wants=service.wants,
        start_seconds=service.timeout_seconds,
        check_interval_seconds=service.check_interval_seconds,
        retries=service.retries,
        stop_seconds=service.stop_seconds,
        restart=RestartPolicy(mode=RestartMode(service.restart)),
        optional=service.optional,
    )

    async def prepare() -> Command:
        return command

    return spec, prepare


def _check_of(name: str, service: UserService, command: Command, run: RunProgram) -> tuple[Probe, int | None]:
    """The probe, and the port it proves, where that is on this machine: only then the listener can be looked up."""
    if service.health_http is not None:
        target = _parsed(name, service.health_http)
        return partial(_probe_url, service.health_http), target.port if target.host in _HERE else None
    if service.health_tcp is not None:
        host, port = split_address(name, service.health_tcp)
        return partial(probe_tcp, host, port), port if host in _HERE else None
    if service.health_command is not None:
        check = Command(name=f"{name} health", argv=service.health_command, env=command.env, cwd=command.cwd)
        return partial(probe_exec, partial(run, check)), None
    return _running_is_ready, None


def _parsed(name: str, url: str) -> Target:
    try:
        return Target.parse(url)
    except ValueError as error:
        raise ConfigurationError(f"cannot check service {name!r}: health_http {error}") from None


def split_address(name: str, address: str) -> tuple[str, int]:
    """`host:port` taken apart, IPv6 in brackets or not. Raises ConfigurationError naming the service."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"cannot check service {name!r}: health_tcp {address!r} is not host:port, as in '127.0.0.1:5000'"
        )
    return host, int(port)


async def _probe_url(url: str) -> Verdict:
    return (await probe_http(url)).verdict


async def _running_is_ready() -> Verdict:
    return good("it runs; no health check is set")
