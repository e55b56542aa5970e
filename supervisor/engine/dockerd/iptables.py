"""Which iptables dockerd shall use: the one whose nat table works, without mixing two kinds of rules."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.process.child import Command, RunProgram

LEGACY_TABLES = Path("/proc/net/ip_tables_names")
MODULES = ("ip_tables", "iptable_nat", "nf_tables", "br_netfilter", "overlay")
_FAMILIES = ("iptables", "ip6tables")
_SUFFIXES = ("", "-save", "-restore")


class IptablesBackend(StrEnum):
    """`default` is whatever the name `iptables` means in the image."""

    DEFAULT = "default"
    NFT = "nft"
    LEGACY = "legacy"


@dataclass(frozen=True)
class Attempt:
    """One backend to try; `load` asks for the kernel modules first."""

    backend: IptablesBackend
    load: bool = False


@dataclass(frozen=True)
class Choice:
    """The backend found and why; `ipv6` is whether its IPv6 twin works too."""

    backend: IptablesBackend
    reason: str
    ipv6: bool


def attempts(setting: IptablesBackend | None, legacy_tables: str) -> list[tuple[Attempt, str]]:
    """What to try in turn, each with its reason. A setting is tried alone: it shall fail rather than be overruled."""
    if setting is not None:
        return [(Attempt(setting), "set"), (Attempt(setting, load=True), "set")]
    if legacy_tables.strip():
        return [(Attempt(IptablesBackend.LEGACY), "legacy rules are there already")]
    return [
        (Attempt(IptablesBackend.DEFAULT), "the image's default works"),
        (Attempt(IptablesBackend.NFT, load=True), "the default fails, nft works"),
        (Attempt(IptablesBackend.LEGACY), "only legacy works"),
    ]


def read_legacy_tables() -> str:
    """Tables of the old kind that this network namespace has; empty where the kernel has none of it."""
    with contextlib.suppress(OSError):
        return LEGACY_TABLES.read_text()
    return ""


def program(backend: IptablesBackend, family: str = "iptables", suffix: str = "") -> str:
    """`iptables`, `iptables-nft-save`."""
    return f"{family}{suffix}" if backend is IptablesBackend.DEFAULT else f"{family}-{backend}{suffix}"


class IptablesChoice:
    """Tries the backends for real. `run` must bound each program."""

    def __init__(self, run: RunProgram, environ: Mapping[str, str]) -> None:
        self._run = run
        self._environ = environ

    async def choose(self, setting: IptablesBackend | None = None) -> Choice:
        """The first one whose nat table can be listed. Raises E22 with each one's answer."""
        answers: list[str] = []
        for attempt, reason in attempts(setting, read_legacy_tables()):
            if attempt.load:
                await self._load_modules()
            refusal = await self._refusal(program(attempt.backend))
            if not refusal:
                six = await self._refusal(program(attempt.backend, "ip6tables"))
                return Choice(attempt.backend, reason, ipv6=not six)
            answers.append(f"{program(attempt.backend)}: {refusal}")
        raise EngineError(
            "E22",
            f"cannot start dockerd: no usable nat table ({'; '.join(dict.fromkeys(answers))}); "
            f"load the modules on the host: modprobe -a {' '.join(MODULES)}",
        )

    async def _refusal(self, name: str) -> str:
        """Why its nat table cannot be used; empty when it can. Listing it also makes the kernel load what it may."""
        status, last = await self._run(self._command(name, "-w", "2", "-t", "nat", "-n", "-L"))
        return "" if status == 0 else last or f"exited with {status}"

    async def _load_modules(self) -> None:
        """Ask; most containers have no /lib/modules and no modprobe, and then this changes nothing."""
        for name in MODULES[:4]:
            await self._run(self._command("modprobe", "-q", name))

    def _command(self, *argv: str) -> Command:
        return Command(name=argv[0], argv=argv, env=self._environ, cwd="/")


def link_programs(choice: Choice, folder: Path, search_path: str) -> str:
    """The PATH for dockerd: where it is not the default, a folder of links to the chosen programs comes first."""
    if choice.backend is IptablesBackend.DEFAULT:
        return search_path
    folder.mkdir(parents=True, exist_ok=True)
    for family in _FAMILIES:
        for suffix in _SUFFIXES:
            target = shutil.which(program(choice.backend, family, suffix), path=search_path)
            link = folder / f"{family}{suffix}"
            link.unlink(missing_ok=True)
            if target is not None:
                link.symlink_to(target)
    return f"{folder}{os.pathsep}{search_path}"
