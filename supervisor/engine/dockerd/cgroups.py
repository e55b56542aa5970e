"""The control groups dockerd needs: which version is mounted, and room below ours on the unified one.

A cgroup v2 group may not hold processes and hand controllers to children, so all of ours move to a child first
(https://docs.kernel.org/admin-guide/cgroup-v2.html, "No Internal Process Constraint").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import anyio

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import mounts
from supervisor.engine.dockerd.mounts import Mount

LEAF = "init"
REQUIRED = frozenset({"memory", "pids", "cpu"})
TRIES = 50
TRY_SECONDS = 0.04
CGROUP_ROOT = Path("/sys/fs/cgroup")


class Version(StrEnum):
    """What is mounted at /sys/fs/cgroup."""

    V2 = "v2"
    V1 = "v1"
    NONE = "none"


@dataclass(frozen=True)
class CgroupFacts:
    """`own_path` is our group as the unified hierarchy names it; `controllers` are those of v1 that are mounted."""

    version: Version
    read_only: bool
    own_path: str
    controllers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Nest:
    """Make room in `folder`; `parent` is what dockerd must be told as cgroup-parent, None in a private namespace."""

    folder: Path
    remount: bool
    parent: str | None


def cgroup_facts(table: Iterable[Mount], own_groups: str, *, root: Path = CGROUP_ROOT) -> CgroupFacts:
    """The facts from the mount table and the text of /proc/self/cgroup."""
    here = [mount for mount in table if mount.point == str(root)]
    own_path = _own_path(own_groups)
    if here and here[-1].kind == "cgroup2":
        return CgroupFacts(Version.V2, here[-1].read_only, own_path)
    legacy = [mount for mount in table if mount.kind == "cgroup"]
    if not legacy:
        return CgroupFacts(Version.NONE, False, own_path)
    names = frozenset().union(*(mount.options for mount in legacy))
    devices = [mount for mount in legacy if "devices" in mount.options]
    return CgroupFacts(Version.V1, any(mount.read_only for mount in devices), own_path, names)


def _own_path(text: str) -> str:
    """The `0::` line, without the leaf that we moved to on an earlier start."""
    for line in text.splitlines():
        if line.startswith("0::"):
            path = line[3:]
            return (path.removesuffix(f"/{LEAF}") or "/") if path.endswith(f"/{LEAF}") else path
    return "/"


def plan(facts: CgroupFacts, *, root: Path = CGROUP_ROOT) -> Nest | None:
    """What to do; None: v1 as it is. In the host's namespace only our own group is touched. Raises E21."""
    match facts.version:
        case Version.NONE:
            raise EngineError("E21", f"cannot start dockerd: no control groups are mounted at {str(root)!r}; {_MEND}")
        case Version.V1:
            _require_legacy(facts)
            return None
    private = facts.own_path == "/"
    folder = root if private else root / facts.own_path.lstrip("/")
    return Nest(folder, facts.read_only, None if private else f"{facts.own_path}/docker")


_MEND = "run the container with --privileged, and with a private cgroup namespace (--cgroupns=private)"


def _require_legacy(facts: CgroupFacts) -> None:
    if "devices" not in facts.controllers:
        raise EngineError(
            "E21",
            "cannot start dockerd: control groups are version 1 and their 'devices' controller is not mounted; "
            "mount it on the host (mount -t cgroup -o devices devices /sys/fs/cgroup/devices) or use version 2",
        )
    if facts.read_only:
        raise EngineError("E21", f"cannot start dockerd: the version 1 control groups are read-only; {_MEND}")


def to_enable(available: Iterable[str], enabled: Iterable[str]) -> list[str]:
    """Controllers to hand on, the required ones first. Raises E21 where a required one does not exist here."""
    names = set(available)
    missing = sorted(REQUIRED - names)
    if missing:
        raise EngineError(
            "E21",
            f"cannot start dockerd: the control group has no {', '.join(missing)} controller "
            f"(it has {', '.join(sorted(names)) or 'none'}); {_MEND}",
        )
    return sorted(names - set(enabled), key=lambda name: (name not in REQUIRED, name))


async def nest(step: Nest) -> None:
    """Carry out a plan; the second time it changes nothing. Gives up with E21 after 50 tries within 2 s.

    A `docker exec` or a health check may put a process into the group at any moment, so moving and enabling repeat.
    """
    if step.remount:
        _remount(step.folder)
    refused: dict[str, str] = {}
    for _ in range(TRIES):
        refused = _try_once(step.folder)
        if not refused.keys() & REQUIRED:
            return
        await anyio.sleep(TRY_SECONDS)
    why = ", ".join(f"{name} ({reason})" for name, reason in sorted(refused.items()))
    raise EngineError(
        "E21", f"cannot start dockerd: control group {str(step.folder)!r} does not hand on {why}; {_MEND}"
    )


def _remount(folder: Path) -> None:
    try:
        mounts.mount("none", folder, "", flags=mounts.MS_REMOUNT | mounts.MS_BIND)
    except OSError as error:
        raise EngineError(
            "E21", f"cannot start dockerd: {str(folder)!r} is read-only ({error.strerror}); {_MEND}"
        ) from error


def _try_once(folder: Path) -> dict[str, str]:
    """Move what is there and enable what is missing; gives the controllers refused, with the reason."""
    try:
        available = _words(folder / "cgroup.controllers")
        missing = to_enable(available, _words(folder / "cgroup.subtree_control"))
        if missing:
            _move_all(folder)
    except OSError as error:
        raise EngineError("E21", f"cannot start dockerd: {error.filename}: {error.strerror}; {_MEND}") from error
    return _enable(folder / "cgroup.subtree_control", missing)


def _words(path: Path) -> list[str]:
    return path.read_text().split()


def _move_all(folder: Path) -> None:
    leaf = folder / LEAF
    leaf.mkdir(exist_ok=True)
    for pid in _words(folder / "cgroup.procs"):
        if pid == "0":  # of another PID namespace: not ours to move
            continue
        try:
            (leaf / "cgroup.procs").write_text(pid)
        except OSError:  # it has ended, or is a kernel thread; what stays is met again by enabling
            continue


def _enable(control: Path, names: Sequence[str]) -> dict[str, str]:
    """One at a time: the kernel takes a line as a whole or not at all, and an optional one must not fail the rest."""
    refused: dict[str, str] = {}
    for name in names:
        try:
            control.write_text(f"+{name}")
        except OSError as error:
            refused[name] = error.strerror or str(error)
    return refused


def read_facts(*, root: Path = CGROUP_ROOT) -> CgroupFacts:
    """The facts now."""
    return cgroup_facts(mounts.read_mounts(), Path("/proc/self/cgroup").read_text(), root=root)


async def settle(*, root: Path = CGROUP_ROOT) -> tuple[CgroupFacts, str | None]:
    """Read, decide, do; gives the facts and the cgroup-parent for dockerd."""
    facts = read_facts(root=root)
    step = plan(facts, root=root)
    if step is None:
        return facts, None
    await nest(step)
    return facts, step.parent
