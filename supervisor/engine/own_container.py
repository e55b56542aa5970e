"""Which container we are (F17): ids we may have, and whether the engine's own word of one fits us. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.engine.dockerd.mounts import Mount

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_UNLIMITED_SECONDS = 120  # `--stop-timeout -1`: nobody kills us, and nothing should wait for ever
_SHORT_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}")
_OWN_FILES = frozenset({"/etc/hostname", "/etc/hosts", "/etc/resolv.conf"})


@dataclass(frozen=True)
class Traces:
    """What of a container can be seen from inside it; `named` is what somebody told us by a setting."""

    named: str = ""
    mounts: tuple[Mount, ...] = ()
    cgroup: str = ""
    hostname: str = ""
    addresses: frozenset[str] = frozenset()
    mac_addresses: frozenset[str] = frozenset()


def candidates(traces: Traces) -> tuple[str, ...]:
    """Ids worth asking for, likeliest first. The first 64 hex digits of the mount table may be a layer's or a
    volume's, so only the roots of the three files an engine binds into every container count."""
    found = [traces.named] if traces.named else []
    for mount in traces.mounts:
        if mount.point in _OWN_FILES:
            found += _ID.findall(mount.root)
    found += _ID.findall(traces.cgroup)
    if _SHORT_ID.fullmatch(traces.hostname):
        found.append(traces.hostname)
    return tuple(dict.fromkeys(found))


def is_us(document: Any, traces: Traces) -> bool:
    """Whether `/containers/<id>/json` describes us: it runs, and its files, its name or an address are ours."""
    if not isinstance(document, dict) or not _part(document, "State").get("Running"):
        return False
    identity = str(document.get("Id", ""))
    bound = any(identity and identity in mount.root for mount in traces.mounts if mount.point in _OWN_FILES)
    return bound or has_our_name(document, traces) or _has_our_address(document, traces)


def has_our_name(document: Any, traces: Traces) -> bool:
    """Whether it was given our host name, by `--hostname` or by its engine."""
    given = _part(document, "Config").get("Hostname") if isinstance(document, dict) else None
    return bool(traces.hostname) and given == traces.hostname


def found_in_list(documents: Any, traces: Traces) -> str:
    """The id of the one container in `/containers/json` with our address and our MAC address, "" where none has."""
    for document in documents if isinstance(documents, list) else ():
        if isinstance(document, dict) and _has_our_address(document, traces, with_mac=True):
            return str(document.get("Id", ""))
    return ""


def _has_our_address(document: dict[str, Any], traces: Traces, *, with_mac: bool = False) -> bool:
    networks = _part(_part(document, "NetworkSettings"), "Networks")
    for network in networks.values():
        if not isinstance(network, dict) or network.get("IPAddress") not in traces.addresses:
            continue
        if not with_mac or str(network.get("MacAddress", "")).lower() in traces.mac_addresses:
            return True
    return False


def _part(document: dict[str, Any], name: str) -> dict[str, Any]:
    part = document.get(name)
    return part if isinstance(part, dict) else {}


def stop_seconds(document: Any) -> int | None:
    """The container's own stop timeout; None where the engine's default holds."""
    value = _part(document, "Config").get("StopTimeout") if isinstance(document, dict) else None
    if not isinstance(value, int):
        return None
    return value if value >= 0 else _UNLIMITED_SECONDS


def local_addresses(fib_trie: str) -> frozenset[str]:
    """Our IPv4 addresses from /proc/net/fib_trie, loopback left out."""
    found: set[str] = set()
    address = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[:1] == ["/32"] and words[-1] == "LOCAL" and not address.startswith("127."):
            found.add(address)
    return frozenset(found)


def mac_addresses(texts: Sequence[str]) -> frozenset[str]:
    """Of /sys/class/net/*/address, loopback's zeros left out."""
    return frozenset(text.strip().lower() for text in texts) - {"", "00:00:00:00:00:00"}
