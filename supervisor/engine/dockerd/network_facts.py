"""What the network around us means for the one inside: packet size, name servers, address ranges nobody uses."""

from __future__ import annotations

import contextlib
import fcntl
import re
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address
from pathlib import Path

SIOCGIFMTU = 0x8921  # include/uapi/linux/sockios.h
_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
# The engine notes what its embedded resolver forwards to; `host(...)` are addresses in the host's own namespace.
_FORWARDED = re.compile(r"^#\s*ExtServers:\s*\[(.*)\]", re.MULTILINE)
_OURS = re.compile(r"^(docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]{7})$")
BRIDGE_RANGES = (
    *(IPv4Network(f"172.{number}.0.0/16") for number in range(17, 32)),
    IPv4Network("192.168.0.0/16"),
    *(IPv4Network(f"10.{number}.0.0/16") for number in range(200, 210)),
)
OVERLAY_RANGES = tuple(IPv4Network(f"10.{number}.0.0/16") for number in (*range(200), *range(210, 256)))
SUBNET_BITS = 24


@dataclass(frozen=True)
class Route:
    """One IPv4 route."""

    interface: str
    network: IPv4Network

    @property
    def default(self) -> bool:
        """Whether it leads everywhere."""
        return self.network.prefixlen == 0


@dataclass(frozen=True)
class Pools:
    """A /16 for bridges and one for overlays (Swarm takes its own at init, for good); None where all are in use."""

    bridges: IPv4Network | None
    overlays: IPv4Network | None


@dataclass(frozen=True)
class NetworkFacts:
    """`mtu` is None without a default route; `servers` are name servers that inner containers can reach too."""

    mtu: int | None
    servers: tuple[str, ...]
    pools: Pools


def parse_routes(text: str) -> list[Route]:
    """/proc/net/route: addresses and masks in hex, least byte first."""
    routes: list[Route] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 7:
            address, mask = (struct.pack("<I", int(fields[column], 16)) for column in (1, 7))
            bits = bin(int.from_bytes(mask, "big")).count("1")
            routes.append(Route(fields[0], IPv4Network((address, bits), strict=False)))
    return routes


def choose_pools(routes: Iterable[Route]) -> Pools:
    """The first ranges that no route overlaps. Routes of an inner engine do not count: they follow our last choice."""
    used = [route.network for route in routes if not route.default and not _OURS.match(route.interface)]
    return Pools(_first_free(BRIDGE_RANGES, used), _first_free(OVERLAY_RANGES, used))


def _first_free(ranges: Sequence[IPv4Network], used: Sequence[IPv4Network]) -> IPv4Network | None:
    return next((each for each in ranges if not any(each.overlaps(network) for network in used)), None)


def usable_servers(texts: Iterable[str]) -> tuple[str, ...]:
    """Name servers from resolv.conf texts, the first text that has any: a loopback one means another host inside."""
    for text in texts:
        named = [words[1] for line in text.splitlines() if (words := line.split())[:1] == ["nameserver"] and words[1:]]
        found = tuple(dict.fromkeys(server for server in [*named, *_forwarded(text)] if _is_reachable(server)))
        if found:
            return found
    return ()


def _forwarded(text: str) -> list[str]:
    match = _FORWARDED.search(text)
    if match is None:
        return []
    return [re.sub(r"^host\((.*)\)$", r"\1", word) for word in match[1].replace(",", " ").split()]


def _is_reachable(server: str) -> bool:
    try:
        address = ip_address(server)
    except ValueError:  # a zone, as in fe80::1%eth0, means nothing inside
        return False
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)


def read_facts() -> NetworkFacts:
    """Read all of it now."""
    routes = parse_routes(Path("/proc/net/route").read_text())
    sizes = [size for route in routes if route.default and (size := read_mtu(route.interface)) is not None]
    return NetworkFacts(min(sizes, default=None), usable_servers(_read_all(_RESOLVERS)), choose_pools(routes))


def read_mtu(interface: str) -> int | None:
    """By ioctl: /sys/class/net shows the namespace of whoever mounted it, netdevice(7)."""
    request = struct.pack("16si12x", interface.encode()[:15], 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        return int(struct.unpack("16si12x", fcntl.ioctl(probe, SIOCGIFMTU, request))[1])
    return None


def _read_all(paths: Iterable[Path]) -> Iterable[str]:
    for path in paths:
        with contextlib.suppress(OSError):
            yield path.read_text(errors="replace")
