"""Closing ports of this network namespace to everything but loopback; for what Swarm publishes on all interfaces.

Swarm cannot publish on one address only. The rule stands in table raw, before any translation of addresses, so that
neither the engine's own rules nor its proxy get round it. A neighbour may also route to a task's own address on the
bridge that tasks leave by, which engines before 28 let through: a rule in table mangle, which they leave alone, ends
that.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.engine.network import GATEWAY
from supervisor.process.child import Command, RunProgram

IPV6_ADDRESSES = Path("/proc/net/if_inet6")
MODULES = ("iptable_raw", "ip6table_raw", "iptable_mangle", "nf_tables", "xt_multiport", "xt_addrtype", "xt_conntrack")
_OURS = re.compile(r"docker0|docker_gwbridge|br-[0-9a-f]{12}|veth[0-9a-f]+")
_LINK = "20"  # the scope, in hex: RFC 4007's link
_LOCK_SECONDS = "5"
_MOST_PORTS = 15  # of one multiport match, iptables-extensions(8)
_MOST_STALE = 16

_FORWARD = "FORWARD"
# Into the bridge may what was published (its destination was translated), and what a task asked for itself.
_DIRECT = (
    *("!", "-i", GATEWAY, "-o", GATEWAY, "-m", "conntrack", "--ctstate", "NEW"),
    *("-m", "conntrack", "!", "--ctstate", "DNAT", "-j", "DROP"),
)


class Need(Enum):
    """What a refused step means."""

    MUST = auto()
    MAY = auto()
    UNTIL_REFUSED = auto()
    """Repeated: only so can rules be removed that are not known."""


@dataclass(frozen=True)
class Step:
    """Arguments of one call, after the table's name."""

    words: tuple[str, ...]
    need: Need = Need.MUST


@dataclass(frozen=True)
class Standing:
    """What is there already: the way into our chain, and in it the rule for exactly these ports."""

    led: bool
    closed: bool


def chain_of(stack: str) -> str:
    """A chain for each stack marks what is its own, and lets its rule be exchanged without a moment with open ports.

    Names of chains have 28 characters at most.
    """
    return f"SUPERVISOR-{hashlib.sha256(stack.encode()).hexdigest()[:12]}"


def jump(chain: str) -> tuple[str, ...]:
    """The way into the chain."""
    return ("PREROUTING", "-j", chain)


def rule(ports: Collection[int]) -> tuple[str, ...]:
    """The rule. Addresses that are not ours are other hosts', which our containers may speak to on the same ports."""
    listed = ",".join(str(port) for port in sorted(set(ports)))
    match = ("-p", "tcp", "-m", "multiport", "--dports", listed, "-m", "addrtype", "--dst-type", "LOCAL")
    return ("!", "-i", "lo", *match, "-j", "DROP")


def steps(standing: Standing, ports: Collection[int], chain: str) -> list[Step]:
    """What is left to do; the new rule is there before an older one goes. No ports: the chain is led to no more."""
    if not ports:
        return [Step(("-D", *jump(chain)))] if standing.led else []
    wanted: list[Step] = []
    if not standing.closed:
        wanted += [
            Step(("-N", chain), Need.MAY),
            Step(("-I", chain, "1", *rule(ports))),
            Step(("-D", chain, "2"), Need.UNTIL_REFUSED),
        ]
    if not standing.led:
        point, *target = jump(chain)
        wanted.append(Step(("-I", point, "1", *target)))
    return wanted


def has_ipv6(addresses: str) -> bool:
    """Whether an interface has an IPv6 address that others reach, by the text of /proc/net/if_inet6.

    A bridge or the end of a container's cable has one of its link alone, which comes and goes with them.
    """
    fields = [line.split() for line in addresses.splitlines() if line.strip()]
    return any(words[-1] != "lo" and not (_OURS.match(words[-1]) and words[3] == _LINK) for words in fields)


async def close_ports(
    ports: Collection[int],
    *,
    stack: str,
    run: RunProgram,
    environ: Mapping[str, str],
    ipv6_addresses: Path = IPV6_ADDRESSES,
) -> None:
    """Let TCP `ports` of this namespace be reached through loopback only; at most 15. Idempotent, milliseconds.

    Those of another `stack` stay as they are. `environ` is dockerd's own: its PATH leads to the iptables that was
    chosen for it. Raises E22 where it cannot be done; IPv6 may fail only while no interface but loopback has an
    address of it.
    """
    assert len(set(ports)) <= _MOST_PORTS
    chain = chain_of(stack)
    refused = await _Family("iptables", run, environ).close(ports, chain)
    if refused:
        raise _refusal(ports, refused)
    refused = await _Family("ip6tables", run, environ).close(ports, chain)
    if refused and has_ipv6(_read(ipv6_addresses)):
        raise _refusal(ports, refused)


class _Family:
    """The tables of one family; `run` bounds each call. Only exit codes count: a last line may be a mere warning."""

    def __init__(self, program: str, run: RunProgram, environ: Mapping[str, str]) -> None:
        self._program = program
        self._run = run
        self._environ = environ

    async def close(self, ports: Collection[int], chain: str) -> str:
        """Do what is left to do; gives why it could not be done."""
        led = not await self._refusal("raw", "-C", *jump(chain))
        closed = bool(ports) and not await self._refusal("raw", "-C", chain, *rule(ports))
        for step in steps(Standing(led=led, closed=closed), ports, chain):
            refused = await self._take(step)
            if refused:
                return refused
        return await self._close_direct() if ports else ""

    async def _close_direct(self) -> str:
        if not await self._refusal("mangle", "-C", _FORWARD, *_DIRECT):
            return ""
        return await self._refusal("mangle", "-I", _FORWARD, "1", *_DIRECT)

    async def _take(self, step: Step) -> str:
        for _ in range(_MOST_STALE if step.need is Need.UNTIL_REFUSED else 1):
            refused = await self._refusal("raw", *step.words)
            if refused:
                return refused if step.need is Need.MUST else ""
        return ""

    async def _refusal(self, table: str, *words: str) -> str:
        argv = (self._program, "-w", _LOCK_SECONDS, "-t", table, *words)
        status, last = await self._run(Command(name=self._program, argv=argv, env=self._environ, cwd="/"))
        return "" if status == 0 else f"{self._program} {words[0]}: {last or f'exited with {status}'}"


def _read(path: Path) -> str:
    """Empty where the kernel has no IPv6."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text()
    return ""


def _refusal(ports: Collection[int], why: str) -> EngineError:
    named = ", ".join(str(port) for port in sorted(set(ports)))
    return EngineError(
        "E22",
        f"cannot close ports {named} to other hosts: {why}; load the modules on the host: "
        f"modprobe -a {' '.join(MODULES)}, or give external data services with SUPERVISOR_DATABASE_URL and "
        f"SUPERVISOR_REDIS_URL",
    )
