"""What this machine is, and whether a release can run on it: system, processor, C library, versions of runtimes."""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from supervisor.releases.manifest import Platform
from supervisor.releases.model import ReleaseError

ANY = "any"
MAX_RANGE = 200
_ALIASES = {
    "x86_64": "amd64",
    "x64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
    "gnu": "glibc",
}
_NUMBERS = r"\d{1,9}(?:\.\d{1,9}){0,5}"
_CLAUSE = re.compile(rf"(>=|<=|==|!=|>|<|=)?\s*v?({_NUMBERS})", re.ASCII)
_FOUND = re.compile(rf"\s*v?({_NUMBERS})", re.ASCII)
_COMPARE: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "!=": operator.ne,
    "==": operator.eq,
    "=": operator.eq,
    "": operator.eq,
}


@dataclass(frozen=True)
class Host:
    """This machine in the words of a manifest; `libc` is empty where it is not known. `runtimes`: program, version."""

    os: str
    arch: str
    libc: str = ""
    runtimes: Mapping[str, str] = field(default_factory=dict)


def platform_facts(
    runtimes: Mapping[str, str], *, root: Path = Path("/"), confstr: Callable[[str], str | None] = os.confstr
) -> Host:
    """The machine we run on. The versions of `runtimes` are the caller's to find, as that means running programs."""
    machine = os.uname()
    return Host(machine.sysname.lower(), _plain(machine.machine), _libc(root, confstr), runtimes)


def _libc(root: Path, confstr: Callable[[str], str | None]) -> str:
    # Our own interpreter's comes first: a glibc system may have musl's loader beside it.
    try:
        if (confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc"):
            return "glibc"
    except (ValueError, OSError):
        pass
    return "musl" if any((root / "lib").glob("ld-musl-*.so.1")) else ""


def misfits(wanted: Platform, host: Host) -> list[str]:
    """Why a release for `wanted` cannot run here, each with what to do; empty where it can."""
    pairs = (("os", wanted.os, host.os), ("arch", wanted.arch, host.arch), ("libc", wanted.libc, host.libc))
    found = [
        f"it is built for {name} {ours!r} and this is {theirs or 'unknown'!r}: build it for this platform"
        for name, ours, theirs in pairs
        if _plain(ours) not in (ANY, _plain(theirs))
    ]
    return found + [
        why for name, range_ in sorted(wanted.runtime.items()) if (why := _why_not(name, range_, host.runtimes))
    ]


def _plain(word: str) -> str:
    return _ALIASES.get(word.lower(), word.lower())


def _why_not(program: str, range_: str, runtimes: Mapping[str, str]) -> str:
    found = runtimes.get(program)
    try:
        fits = found is not None and in_range(found, range_)
    except ReleaseError as error:
        return str(error)
    if found is None:
        return f"it needs {program!r} {range_}, which was not found here: use an image that has it"
    return "" if fits else f"it needs {program!r} {range_} and here is {found}: use an image with that, or build for it"


def in_range(version: str, range_: str) -> bool:
    """Whether `version` lies in `range_`: clauses like `>=20`, `<23`, `!=21.2` or `20.11`, all of which must hold.

    Compared are as many numbers as the clause gives, so that `<=20` and `20` hold for 20.11.1 and `>20` does not. Of
    the version what follows its dotted numbers does not count (`v20.11.1-rc.1`). Raises ReleaseError.
    """
    found = _FOUND.match(version)
    if found is None:
        raise ReleaseError(f"cannot compare version {version[:80]!r} with {range_[:80]!r}: it does not begin with one")
    numbers = _parts(found[1])
    # A list, so that a clause that cannot be read is an error behind one that does not hold, too.
    holds = [_holds(numbers, clause.strip(), range_) for clause in range_.split(",", MAX_RANGE)]
    return all(holds)


def _holds(numbers: tuple[int, ...], clause: str, range_: str) -> bool:
    parsed = _CLAUSE.fullmatch(clause)
    if parsed is None or len(range_) > MAX_RANGE:
        raise ReleaseError(
            f"cannot read the version range {range_[:80]!r}: {clause[:80]!r} is none; write it like '>=20,<23'"
        )
    wanted = _parts(parsed[2])
    # Zip to the length of what is wanted: the rest of the version is free, and a missing number is 0.
    ours = tuple(part for part, _ in zip_longest(numbers[: len(wanted)], wanted, fillvalue=0))
    return _COMPARE[parsed[1] or ""](ours, wanted)


def is_at_least(version: str, minimum: str) -> bool:
    """Whether `version` is `minimum` or newer, by their dotted numbers. Raises ReleaseError."""
    return in_range(version, f">={minimum}")


def _parts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
