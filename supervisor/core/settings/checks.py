"""What needs a look at several settings at once. Each check gives sentences of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from ipaddress import ip_network

from supervisor.core.settings.app_checks import APP_CHECKS
from supervisor.core.settings.model import Settings
from supervisor.core.settings.names import BUILT_IN, did_you_mean, variable


def _check_certificate(settings: Settings) -> Iterator[str]:
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        yield "tls_cert_file and tls_key_file go together: set both or neither"


def _check_ports(settings: Settings) -> Iterator[str]:
    taken = {port: f"port of [apps.{name}]" for name, port in settings.ports_of_apps.items()}
    for name in _PORTS[1:] if settings.apps else _PORTS:
        port = getattr(settings, name)
        if port and taken.setdefault(port, name) != name:
            yield f"{taken[port]} and {name} are both {port}; give each a port of its own"


def _check_services(settings: Settings) -> Iterator[str]:
    for name in settings.services:
        if name not in BUILT_IN:
            known = ", ".join(BUILT_IN)
            yield f"{variable('services')}: no service {name!r}{did_you_mean(name, BUILT_IN)}; there are {known}"
    for name in settings.user_services:
        if name in BUILT_IN:
            yield f"[services.{name}] is the name of a built-in service; choose another"


def _check_names(settings: Settings) -> Iterator[str]:
    names = {*settings.services, *settings.user_services}
    for field in ("optional_services", "essential_services"):
        for name in getattr(settings, field):
            if name not in names:
                yield f"{variable(field)}: no service {name!r}{did_you_mean(name, names)}"
    for name, service in settings.user_services.items():
        for other in (*service.requires, *service.wants):
            if other not in names:
                yield f"[services.{name}]: no service {other!r}{did_you_mean(other, names)}"


def _check_proxies(settings: Settings) -> Iterator[str]:
    for word in settings.trusted_proxies:
        if word in ("private", "none"):
            continue
        try:
            ip_network(word)
        except ValueError as error:
            yield f"{variable('trusted_proxies')}: {error}; give networks like 10.0.0.0/8, `private`, or `none`"


def _check_app_ports(settings: Settings) -> Iterator[str]:
    low, high = (int(word) for word in settings.app_ports.split("-"))
    if not 1024 <= low < high <= 65535 or high - low < 9:
        yield f"{variable('app_ports')} is {settings.app_ports!r}: give ten ports or more from 1024 to 65535, low-high"


_PORTS = ("port", "http_port", "https_port", "postgres_port", "redis_port")
_Check = tuple[tuple[str, ...], Callable[[Settings], Iterator[str]]]
_CHECKS: tuple[_Check, ...] = (
    (("tls_cert_file", "tls_key_file"), _check_certificate),
    ((*_PORTS, "apps"), _check_ports),
    (("trusted_proxies",), _check_proxies),
    (("app_ports",), _check_app_ports),
    (("services", "user_services"), _check_services),
    (("services", "user_services", "optional_services", "essential_services"), _check_names),
    *APP_CHECKS,
)


def check_all(settings: Settings, bad: set[str]) -> Iterator[str]:
    """The mistakes between settings, where all of those are good by themselves."""
    for fields, check in _CHECKS:
        if not bad.intersection(fields):
            yield from check(settings)
