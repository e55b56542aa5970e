"""A command held apart from the system as far as it allows: what to hold it to, and what of that could be done.

The doing is `jail_program`, a program of its own: namespaces are entered by a process with one thread, which no
supervisor is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from supervisor.process.child import Command

_PROGRAM = Path(__file__).with_name("jail_program.py")
_MAX_REPORT_BYTES = 16 * 1024
PARTS = ("user", "network", "files", "processes", "ipc")
MASKED = ("/tmp", "/var/tmp", "/run")  # noqa: S108  # where programs write, and where sockets of others are


@dataclass(frozen=True)
class Jail:
    """What a command gets to see. The file system is read-only but for `scratch` and empty folders at `MASKED`.

    `keep` stays to be seen, read-only, where a mask would hide it; `hidden` files read as empty. Limits hold for each
    process, `cpu_seconds` too.
    """

    scratch: str
    keep: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    cpu_seconds: int = 60
    memory_bytes: int = 4 * 1024**3
    file_bytes: int = 256 * 1024**2
    descriptors: int = 1024
    processes: int = 512


@dataclass(frozen=True)
class Contained:
    """Why a part could not be contained; a part that is not named was."""

    why: Mapping[str, str]

    def holds(self, part: str) -> bool:
        """Whether this part (of `PARTS`) is held apart."""
        return part not in self.why


UNKNOWN = Contained(dict.fromkeys(PARTS, "the program that contains it did not say"))


def jailed(command: Command, jail: Jail, report: int) -> Command:
    """`command` in that jail. `report` is a pipe's write end, on which `read_contained` finds what could be done.

    It has the command's own exit status; killed, it takes all that runs in it along, where processes are contained.
    """
    inside = any(jail.scratch.startswith(f"{mask}/") for mask in MASKED)
    masked = MASKED if inside else (*MASKED, jail.scratch)
    spec = json.dumps({**asdict(jail), "masked": masked, "report": report, "cwd": command.cwd or "/"})
    # -I: the environment is the command's; it must not reach this Python.
    argv = (sys.executable, "-I", "-S", str(_PROGRAM), spec, *command.argv)
    return replace(command, argv=argv, cwd="/", pass_fds=(*command.pass_fds, report))


def read_contained(report: int) -> Contained:
    """What could not be done and why; call it when the command has begun or ended, with the write end closed."""
    try:
        os.set_blocking(report, False)
        found = json.loads(os.read(report, _MAX_REPORT_BYTES))
        return Contained({part: str(found[part]) for part in PARTS if found[part]})
    except (OSError, ValueError, KeyError, TypeError):
        return UNKNOWN
