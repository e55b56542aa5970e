"""An address range for Swarm's networks that nothing else uses. It is chosen at init and cannot be changed later.

Swarm's own default, 10.0.0.0/8, is handed out with no look at the host's routes (moby #50011).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

POOL_BITS = 16
SUBNET_BITS = 24

# Upper parts of the private ranges first: VPCs, home routers and Docker itself begin at the lower ends.
_CANDIDATES = (
    *(IPv4Network(f"10.{number}.0.0/{POOL_BITS}") for number in range(254, 99, -1)),
    *(IPv4Network(f"172.{number}.0.0/{POOL_BITS}") for number in range(31, 15, -1)),
    *(IPv4Network(f"10.{number}.0.0/{POOL_BITS}") for number in range(99, 0, -1)),
)
_LEAF = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)$")
_PREFIX = re.compile(r"/(\d+) \S+ (\w+)")


def free_pool(used: Iterable[IPv4Network]) -> IPv4Network | None:
    """The first candidate that overlaps nothing in `used` (default routes do not count); None when all do."""
    taken = [network for network in used if network.prefixlen > 0]
    return next((pool for pool in _CANDIDATES if not any(pool.overlaps(network) for network in taken)), None)


def parse_fib_trie(text: str) -> set[IPv4Network]:
    """Every IPv4 route of every table and every local address, from /proc/net/fib_trie.

    /proc/net/route has the main table only, which VPNs with tables of their own stay out of. Below each leaf stand its
    prefixes: `/24 link UNICAST`; the trie's own branches (`+--`) are no routes.
    """
    found: set[IPv4Network] = set()
    leaf: IPv4Address | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if match := _LEAF.match(stripped):
            leaf = IPv4Address(match[1])
        elif leaf is not None and (match := _PREFIX.match(stripped)):
            if match[2] in ("UNICAST", "LOCAL", "BLACKHOLE", "UNREACHABLE", "PROHIBIT"):
                found.add(IPv4Network((leaf, int(match[1])), strict=False))
        else:
            leaf = None
    return found


def read_used(path: Path = Path("/proc/net/fib_trie")) -> set[IPv4Network]:
    """What is routed or bound in our own network namespace; empty where the kernel does not tell."""
    try:
        return parse_fib_trie(path.read_text())
    except OSError:
        return set()


def network_ranges(networks: Iterable[Mapping[str, Any]]) -> set[IPv4Network]:
    """The IPv4 ranges of an engine's networks, as the API lists them."""
    configs = [config for network in networks for config in (network.get("IPAM") or {}).get("Config") or ()]
    subnets = [str(config.get("Subnet") or "") for config in configs]
    return {IPv4Network(subnet, strict=False) for subnet in subnets if subnet and ":" not in subnet}
