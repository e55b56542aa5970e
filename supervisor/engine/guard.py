"""Closing ports of this network namespace to everything but loopback; for what Swarm publishes on all interfaces.

Swarm cannot publish on one address only. The rule stands in table raw, before any translation of addresses, so that
neither the engine's own rules nor its proxy get round it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd.iptables import RunProgram
from supervisor.process.child import Command

CHAIN = "SUPERVISOR-CLOSED"
IPV6_ADDRESSES = Path("/proc/net/if_inet6")
MODULES = ("iptable_raw", "ip6table_raw", "nf_tables", "xt_multiport", "xt_addrtype")
_LOCK_SECONDS = "5"
_MOST_PORTS = 15  # of one multiport match, iptables-extensions(8)
_MOST_STALE = 16

# A chain of our own marks what is ours, and lets its rule be exchanged without a moment with open ports.
_JUMP = ("PREROUTING", "-j", CHAIN)


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


def rule(ports: Collection[int]) -> tuple[str, ...]:
    """The rule. Addresses that are not ours are other hosts', which our containers may speak to on the same ports."""
    listed = ",".join(str(port) for port in sorted(set(ports)))
    match = ("-p", "tcp", "-m", "multiport", "--dports", listed, "-m", "addrtype", "--dst-type", "LOCAL")
    return ("!", "-i", "lo", *match, "-j", "DROP")


def steps(standing: Standing, ports: Collection[int]) -> list[Step]:
    """What is left to do; the new rule is there before an older one goes. No ports: the chain is led to no more."""
    if not ports:
        return [Step(("-D", *_JUMP))] if standing.led else []
    wanted: list[Step] = []
    if not standing.closed:
        wanted += [
            Step(("-N", CHAIN), Need.MAY),
            Step(("-I", CHAIN, "1", *rule(ports))),
            Step(("-D", CHAIN, "2"), Need.UNTIL_REFUSED),
        ]
    if not standing.led:
        wanted.append(Step(("-I", _JUMP[0], "1", *_JUMP[1:])))
    return wanted


def has_ipv6(addresses: str) -> bool:
    """Whether an interface other than loopback has an IPv6 address, by the text of /proc/net/if_inet6."""
    return any(line.split()[-1:] != ["lo"] for line in addresses.splitlines() if line.strip())


async def close_ports(
    ports: Collection[int], *, run: RunProgram, environ: Mapping[str, str], ipv6_addresses: Path = IPV6_ADDRESSES
) -> None:
    """Let TCP `ports` of this namespace be reached through loopback only; at most 15. Idempotent, milliseconds.

    `environ` is dockerd's own: its PATH leads to the iptables that was chosen for it. Raises E22 where it cannot be
    done; IPv6 may fail only while no interface but loopback has an address of it.
    """
    assert len(set(ports)) <= _MOST_PORTS
    refused = await _Table("iptables", run, environ).close(ports)
    if refused:
        raise _refusal(ports, refused)
    refused = await _Table("ip6tables", run, environ).close(ports)
    if refused and has_ipv6(_read(ipv6_addresses)):
        raise _refusal(ports, refused)


class _Table:
    """Table raw of one family; `run` bounds each call. Only exit codes count: a last line may be a mere warning."""

    def __init__(self, program: str, run: RunProgram, environ: Mapping[str, str]) -> None:
        self._program = program
        self._run = run
        self._environ = environ

    async def close(self, ports: Collection[int]) -> str:
        """Do what is left to do; gives why it could not be done."""
        led = not await self._refusal("-C", *_JUMP)
        closed = bool(ports) and not await self._refusal("-C", CHAIN, *rule(ports))
        for step in steps(Standing(led=led, closed=closed), ports):
            refused = await self._take(step)
            if refused:
                return refused
        return ""

    async def _take(self, step: Step) -> str:
        for _ in range(_MOST_STALE if step.need is Need.UNTIL_REFUSED else 1):
            refused = await self._refusal(*step.words)
            if refused:
                return refused if step.need is Need.MUST else ""
        return ""

    async def _refusal(self, *words: str) -> str:
        argv = (self._program, "-w", _LOCK_SECONDS, "-t", "raw", *words)
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
