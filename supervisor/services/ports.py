"""Loopback ports of our own servers: chosen once, remembered, and never taken from a stranger."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Protocol

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import variable
from supervisor.process.procfs import describe_port_owner

LOOPBACK = "127.0.0.1"
_LOWEST = 15000
_EPHEMERAL_LOW = 32768  # Linux's default
_TRIES = 200


class PortBook(Protocol):
    """Gives a server its port."""

    def port(self, name: str, wanted: int) -> int:
        """The port of `name`; `wanted` 0 leaves the choice. Raises ConfigurationError where `wanted` is taken."""


class RememberedPorts:
    """A PortBook over `ports` (name to port), which `save` makes durable. The same name gets the same port all run.

    `say` is told, in a sentence, of a port that had to change. `outlived`: what listens there may be our own service,
    which ran on without us, so a port that was asked for or remembered is not tried; the engine refuses a taken one.
    """

    def __init__(
        self,
        ports: MutableMapping[str, int],
        *,
        save: Callable[[], None],
        say: Callable[[str], None],
        outlived: bool = False,
    ) -> None:
        self._outlived = outlived
        self._ports = ports
        self._save = save
        self._say = say
        self._settled: dict[str, int] = {}

    def port(self, name: str, wanted: int) -> int:
        """Checked against strangers on the first call only: later the listener on it is our own."""
        if name not in self._settled:
            self._settled[name] = self._settle(name, wanted)
        return self._settled[name]

    def _settle(self, name: str, wanted: int) -> int:
        if wanted:
            if not self._outlived:
                require_free(wanted, name)
            return wanted
        remembered = self._ports.get(name, 0)
        if remembered and (self._outlived or is_free(remembered)) and remembered not in self._settled.values():
            return remembered
        chosen = pick_free(avoid={*self._ports.values(), *self._settled.values()})
        if remembered:
            self._say(
                f"{name} moves from port {remembered} to {chosen}: "
                f"{remembered} is taken by {describe_port_owner(remembered)}"
            )
        self._ports[name] = chosen
        self._save()
        return chosen


def require_free(port: int, name: str) -> None:
    """Raises ConfigurationError naming who listens on loopback `port`, which was asked for `name`."""
    reason = bind_error(port)
    if not reason:
        return
    setting = variable(f"{name.replace('-', '_')}_port")
    if reason == errno.EADDRINUSE:
        raise ConfigurationError(
            f"cannot use port {port} for {name!r}: it is taken by {describe_port_owner(port)}; "
            f"stop that, or set {setting} to another port (0: one is chosen)"
        )
    raise ConfigurationError(
        f"cannot use port {port} for {name!r}: {errno.errorcode.get(reason, reason)}, ports below 1024 need a "
        f"privilege; set {setting} to a port above (0: one is chosen)"
    )


def is_free(port: int) -> bool:
    """Whether a server could listen on loopback `port` now."""
    return bind_error(port) == 0


def bind_error(port: int, host: str = LOOPBACK) -> int:
    """The errno of listening on `host:port`, 0 when it works; `host` "" is every address, IPv6 too where there is any.

    Really listens for a moment: a mere bind succeeds beside some listeners.
    """
    try:
        with _listen(port, host):
            return 0
    except OSError as error:
        return error.errno or errno.EINVAL


def _listen(port: int, host: str) -> socket.socket:
    if host:
        return socket.create_server((host, port))
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return socket.create_server(("0.0.0.0", port))


def pick_free(*, avoid: set[int]) -> int:
    """A free loopback port, below the range the kernel gives outgoing connections: one of those could hold it at the
    next boot. Where that range starts too low, one the kernel chooses.
    """
    top = ephemeral_low()
    for _ in range(_TRIES if top > _LOWEST else 0):
        port = _LOWEST + secrets.randbelow(top - _LOWEST)
        if port not in avoid and is_free(port):
            return port
    with _listen(0, LOOPBACK) as listener:
        return int(listener.getsockname()[1])


def ephemeral_low() -> int:
    """The first port the kernel uses for outgoing connections."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _EPHEMERAL_LOW
