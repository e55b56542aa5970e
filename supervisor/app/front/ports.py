"""The sockets of a public port, and the private loopback ports that generations are given."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path

from supervisor.core.errors import ConfigurationError, PrivilegeError, SupervisorError
from supervisor.process.procfs import describe_port_owner

EVERYWHERE = ("0.0.0.0", "::")
LOOPBACK = "127.0.0.1"
_PRIVATE_PORTS = 4000
_FEW_PORTS = 100
_LOWEST_PORT = 1024
_HIGHEST_PORT = 65535
_BACKLOG = 4096  # the kernel's default of somaxconn since 5.4
_NO_SUCH_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def listen(port: int, *, hosts: tuple[str, ...] = EVERYWHERE) -> tuple[socket.socket, ...]:
    """Listening sockets on `port`, one a host; an IPv6 host is left out where the kernel has no IPv6.

    Port 0 lets the kernel choose, the same for all. Non-blocking and close-on-exec; whoever calls closes them. Never
    SO_REUSEPORT: with it a second listener takes a share of the connections, and what it holds dies with it.
    Raises ConfigurationError or PrivilegeError, with no socket left open.
    """
    with contextlib.ExitStack() as stack:
        listeners: list[socket.socket] = []
        for host in hosts:
            listener = _listen(host, port)
            if listener is not None:
                listeners.append(stack.enter_context(listener))
                port = listener.getsockname()[1]
        stack.pop_all()
    return tuple(listeners)


def _listen(host: str, port: int) -> socket.socket | None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return _open(family, host, port)
    except OSError as error:
        if family == socket.AF_INET6 and error.errno in _NO_SUCH_FAMILY:
            return None
        raise _unavailable(port, error) from error


def _open(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setblocking(False)
        listener.bind((host, port))
        listener.listen(_somaxconn())
        stack.pop_all()
    return listener


def _unavailable(port: int, error: OSError) -> SupervisorError:
    if error.errno == errno.EADDRINUSE:
        return ConfigurationError(
            f"cannot listen on port {port}: it is taken by {describe_port_owner(port)}; "
            f"stop that, or choose another with PORT"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return PrivilegeError(
            f"cannot listen on port {port}: it needs a privilege we do not have; choose one from 1024 on with PORT, "
            f"lower net.ipv4.ip_unprivileged_port_start, or run as root"
        )
    return ConfigurationError(
        f"cannot listen on port {port}: {os.strerror(error.errno or 0).lower()}; choose another with PORT"
    )


def _somaxconn() -> int:
    try:
        return int(Path("/proc/sys/net/core/somaxconn").read_text())
    except (OSError, ValueError):
        return _BACKLOG


class PortPool:
    """Private ports `low` to `high`, both included, given in turn: one just used is the last to be used again.

    `begin` is how far from `low` the first is: supervisors that share a network had better not begin with the same.
    """

    def __init__(self, low: int, high: int, *, begin: int = 0) -> None:
        self._low = low
        self._count = high - low + 1
        self._next = begin % self._count

    def take(self) -> int:
        """The next port that a server could listen on now. Raises ConfigurationError where there is none.

        One that is free but for connections just closed is given only where there is no better one: for a minute it
        takes a server that sets SO_REUSEADDR, as nearly all do.
        """
        for reuse in (False, True):
            for _ in range(self._count):
                port = self._low + self._next
                self._next = (self._next + 1) % self._count
                if _is_free(port, reuse=reuse):
                    return port
        high = self._low + self._count - 1
        raise ConfigurationError(
            f"cannot give the app a private port: {self._low} to {high} are all taken, "
            f"{self._low} by {describe_port_owner(self._low)}; end what listens there, or give a wider range"
        )


def _is_free(port: int, *, reuse: bool) -> bool:
    """Whether an app could listen there: on the address it is told, and on all, which some take whatever they are told.

    Without `reuse` any app could; with it those that set SO_REUSEADDR.
    """
    try:
        for host in (LOOPBACK, "0.0.0.0"):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                probe.bind((host, port))
                probe.listen(1)
    except OSError:
        return False
    return True


def default_range(ephemeral_low: int, ephemeral_high: int) -> tuple[int, int]:
    """Private ports outside of what the kernel gives outgoing connections: one of those could hold a port of ours.

    Just below that range, else just above it, else (it is nearly everything) anywhere.
    """
    if ephemeral_low - _LOWEST_PORT >= _FEW_PORTS:
        return max(_LOWEST_PORT, ephemeral_low - _PRIVATE_PORTS), ephemeral_low - 1
    if _HIGHEST_PORT - ephemeral_high >= _FEW_PORTS:
        return ephemeral_high + 1, min(_HIGHEST_PORT, ephemeral_high + _PRIVATE_PORTS)
    return 20000, 20000 + _PRIVATE_PORTS - 1
