"""What an engine leaves in the network namespace and the cgroups when it ends, and taking exactly that away again."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

_GATEWAY_BRIDGE = "docker_gwbridge"  # of Swarm; one name for every engine of a network namespace
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


@dataclass(frozen=True)
class Before:
    """What the machine was like before the engine came."""

    forwarding: str
    forward_policy: str
    docker_chains: bool
    gateway_bridge: bool
    containerd_folder: bool


@dataclass(frozen=True)
class Ours:
    """What tells our rules from others' rules; `alone`: no other engine lives on chains of the same names."""

    network: ipaddress.IPv4Network
    interfaces: frozenset[str]
    alone: bool


def look() -> Before:
    """The machine as it is now."""
    rules = _output("iptables-save")
    return Before(
        forwarding=_FORWARDING.read_text().strip(),
        forward_policy="DROP" if re.search(r"^:FORWARD DROP", rules, re.MULTILINE) else "ACCEPT",
        docker_chains=":DOCKER " in rules,
        gateway_bridge=_GATEWAY_BRIDGE in interfaces(),
        containerd_folder=Path("/run/containerd").exists(),
    )


def clear(*, bridge: str, network: ipaddress.IPv4Network, networks_file: Path, cgroup: str, before: Before) -> None:
    """Take away what the ended engine left; every step is one that another run may have done already."""
    alone = not others_alive()
    own = own_interfaces(interfaces(), bridge=bridge, known=_read(networks_file))
    if alone and not before.gateway_bridge:
        own |= {_GATEWAY_BRIDGE}
    ours = Ours(network, frozenset(own), alone=alone and not before.docker_chains)
    for words in removals(_output("iptables-save"), ours):
        _quietly("iptables", "-w", *words)
    for interface in sorted(own & interfaces()):
        _quietly("ip", "link", "delete", interface)
    if alone:
        _quietly("iptables", "-w", "-P", "FORWARD", before.forward_policy)
        _FORWARDING.write_text(before.forwarding)
    _remove_cgroups(cgroup)
    if not before.containerd_folder:
        _ignoring_errors(Path("/run/containerd").rmdir)


def removals(saved: str, ours: Ours) -> Iterator[list[str]]:
    """Arguments of iptables that take our rules out of what iptables-save printed; rules before their chains."""
    chains = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":DOCKER"):
            chains.append((table, line[1:].split()[0]))
        elif line.startswith("-A ") and _is_ours(words := shlex.split(line), ours):
            yield ["-t", table, "-D", *words[1:]]
    if ours.alone:
        for verb in ("-F", "-X"):
            yield from (["-t", table, verb, chain] for table, chain in chains)


def _is_ours(words: list[str], ours: Ours) -> bool:
    for option, value in pairwise(words):
        if option in {"-i", "-o"} and value in ours.interfaces:
            return True
        if option in {"-s", "-d"} and ipaddress.IPv4Network(value, strict=False).subnet_of(ours.network):
            return True
        if ours.alone and option == "-j" and value.startswith("DOCKER"):
            return True
    return False


def own_interfaces(present: Collection[str], *, bridge: str, known: bytes) -> set[str]:
    """Our bridge, and those of the networks our engine made: their ids stand in its database, as Docker names them."""
    made = {name for name in present if re.fullmatch("br-[0-9a-f]{12}", name) and name[3:].encode() in known}
    return made | {bridge}


def interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir()}


def others_alive() -> bool:
    """Whether a dockerd runs in our network namespace; ask when ours has ended."""
    own = Path("/proc/self/ns/net").readlink()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "comm").read_text() == "dockerd\n" and (folder / "ns/net").readlink() == own:
                return True
        except OSError:  # ended meanwhile
            continue
    return False


def _remove_cgroups(name: str) -> None:
    """In every hierarchy of version 1, or the one of version 2; empty by now, deepest first."""
    root = Path("/sys/fs/cgroup")
    for top in (root / name.strip("/"), *root.glob(f"*{name}")):
        folders = [path for path in top.rglob("*") if path.is_dir()] if top.is_dir() else []
        for folder in (*sorted(folders, key=lambda path: -len(path.parts)), top):
            _ignoring_errors(folder.rmdir)


def _ignoring_errors(step: Callable[[], None]) -> None:
    with suppress(OSError):
        step()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _output(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True).stdout


def _quietly(*argv: str) -> None:
    subprocess.run(argv, capture_output=True, timeout=30, check=False)
