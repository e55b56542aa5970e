"""Why dockerd ended, from its own last lines: the line that says it, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.core.errors import EngineError

LAST_LINES = 40


@dataclass(frozen=True)
class Hint:
    """What to do. `final`: starting again without a change cannot help."""

    pattern: re.Pattern[str]
    advice: str
    final: bool = False


def _hint(pattern: str, advice: str, *, final: bool = False) -> Hint:
    return Hint(re.compile(pattern, re.IGNORECASE), advice, final)


# First match wins, so the special stand before the general.
HINTS: tuple[Hint, ...] = (
    _hint(
        r"pid file found|process with pid \d+ is still running",
        "another dockerd runs here, or a pid file names a live process: end that one, or remove the file",
    ),
    _hint(
        r"(?:listen|bind|load listeners|create unix socket).*is a directory",
        "a directory is in the socket's place: remove it, or set another socket path",
        final=True,
    ),
    _hint(
        r"\.sock.*(?:device or resource busy|address already in use)|can't create unix socket",
        "something is mounted over the socket, or listens on it: do not mount a socket in this mode",
        final=True,
    ),
    _hint(
        r"(?:iptables|ip6tables|nat table|chain).*(?:no chain/target|table does not exist|can't initialize|"
        r"permission denied|not found|does a rule exist)|failed to (?:register|create) nat chain",
        "the nat table cannot be used: on the host run modprobe -a ip_tables iptable_nat nf_tables br_netfilter",
    ),
    _hint(
        r"devices cgroup (?:isn't|is not) mounted|cgroup.*devices.*not mounted",
        "mount the devices controller on the host, or use control groups version 2",
        final=True,
    ),
    _hint(
        r"(?:domain controllers|threaded mode|cgroup\.subtree_control).*",
        "the control groups leave no room for containers: run with --privileged and --cgroupns=private",
    ),
    _hint(
        r"(?:contains|found) several (?:valid )?graphdrivers|multiple graphdrivers",
        "the data root holds state of several storage drivers: move all but one away",
        final=True,
    ),
    _hint(
        r"(?:overlay|backing file ?system|graphdriver|snapshotter).*(?:not supported|unsupported|invalid argument|"
        r"d_type|prerequisites)|(?:invalid argument|not supported).*overlay",
        "overlays do not work on the data root's file system: give it a volume on ext4 or xfs (ftype=1)",
        final=True,
    ),
    _hint(r"no space left on device|disk quota exceeded", "the disk is full: free some of it"),
    _hint(
        r"timeout waiting for containerd to start|failed to (?:start|dial) containerd.*(?:timeout|deadline)",
        "containerd did not come up: a process of the last daemon may still hold its database or pid file",
    ),
    _hint(
        r"could not find an available.*(?:address pool|subnet)|predefined address pools have been fully subnetted|"
        r"pool overlaps with other",
        "no address range is free: set default-address-pools in daemon.json to one that no route uses",
        final=True,
    ),
    _hint(
        r"live-restore.*swarm|swarm.*live-restore",
        "live-restore and Swarm exclude each other: remove live-restore from daemon.json",
        final=True,
    ),
    _hint(
        r"specified both as a flag and in the configuration file|following directives (?:are specified|don't match)|"
        r"unable to configure the docker daemon|cannot unmarshal|invalid character .* looking for",
        "correct daemon.json as the line says",
        final=True,
    ),
    _hint(r"read-only file system", "a folder that it must write is read-only: look at the mounts", final=True),
    _hint(
        r"operation not permitted|permission denied",
        "the container lacks a right: run it with --privileged",
    ),
)
_ERROR = re.compile(r"level=(?:error|fatal)|^(?:failed|unable|error|fatal|panic)|unknown flag", re.IGNORECASE)
_MESSAGE = re.compile(r'msg="((?:[^"\\]|\\.)*)"')
_PROGRESS = re.compile(
    r"loading containers|restoring containers|starting up|migrat|upgrad|loading plugin|containerd successfully booted|"
    r"docker daemon|completed initialization|removing stale|pruning|restor|creating a containerd client|initializing",
    re.IGNORECASE,
)


def shows_progress(line: str) -> bool:
    """Whether a line of its log says that a slow start goes on."""
    return _PROGRESS.search(line) is not None


def find_hint(lines: Sequence[str]) -> Hint | None:
    """The first hint of the table that any of the last lines matches, errors before the rest."""
    recent = lines[-LAST_LINES:]
    errors = [line for line in recent if _ERROR.search(line)]
    for among in (errors, recent):
        for hint in HINTS:
            if any(hint.pattern.search(line) for line in among):
                return hint
    return None


def last_error(lines: Sequence[str]) -> str:
    """The line that says it, without logfmt around it: the last error, else the last line."""
    errors = [line for line in lines[-LAST_LINES:] if _ERROR.search(line)]
    line = (errors or [*lines[-1:]] or [""])[-1]
    match = _MESSAGE.search(line)
    return match[1].replace('\\"', '"') if match else line.strip()


def failure(lines: Sequence[str], *, ended: str, attempt: int, log: str) -> EngineError:
    """E25: its last error line, the hint, where its log is, which attempt it was."""
    hint = find_hint(lines)
    advice = hint.advice if hint is not None else "its log above has more"
    said = last_error(lines) or "it wrote nothing"
    return EngineError("E25", f"cannot start dockerd: it {ended} (attempt {attempt}): {said}; {advice} (log: {log})")
