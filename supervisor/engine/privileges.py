"""Whether a dockerd of our own could work here (F10 to F14): capabilities, tried mounts, cgroups, programs, data root.

What is tried leaves nothing: the mount is made in a mount namespace that ends with its thread, the cgroup is removed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.engine.dockerd.mounts import Mount, mount_of
from supervisor.engine.facts import NEEDED_CAPABILITIES, SYS_ADMIN, Cgroup, DataRoot, Privileges, Probe, Probed

PROGRAMS = ("dockerd", "containerd", "runc", "iptables", "ip6tables", "ip", "fuse-overlayfs")
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000  # linux/mount.h
_PROBE_SECONDS = 2.0
_SECCOMP = {"0": "off", "1": "strict", "2": "filtered"}


@dataclass(frozen=True)
class Places:
    """Where the kernel's files are."""

    proc: Path = Path("/proc")
    cgroup: Path = Path("/sys/fs/cgroup")


def read(places: Places) -> Privileges:
    """Capabilities, and the probes where those look good (a refused try may be logged by the host)."""
    status = _status(places.proc / "self/status")
    effective = int(status.get("CapEff", "0"), 16)
    worth_trying = effective >> NEEDED_CAPABILITIES[SYS_ADMIN] & 1
    return Privileges(
        effective=effective,
        seccomp=_SECCOMP.get(status.get("Seccomp", ""), ""),
        no_new_privileges=status.get("NoNewPrivs") == "1",
        uid_map=" ".join(_text(places.proc / "self/uid_map").split()),
        mount=try_mount() if worth_trying else Probe(),
        cgroup=try_cgroup(places.cgroup) if worth_trying else Probe(),
        nat=nat_table(places.proc),
    )


def _status(path: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in _text(path).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def try_mount() -> Probe:
    """Mount a tmpfs in a mount namespace of a thread's own, which ends with the thread: nobody sees it.

    unshare(2) needs CLONE_FS with it, as threads share their root; a pooled thread must never be used for this.
    """
    outcome: list[Probe] = []
    thread = threading.Thread(target=lambda: outcome.append(_mount_apart()), name="mount probe", daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return outcome[0] if outcome else Probe(Probed.UNKNOWN, f"no answer within {_PROBE_SECONDS:g} s")


def _mount_apart() -> Probe:
    libc = ctypes.CDLL(None, use_errno=True)
    before = _own_mount_namespace()
    if libc.unshare(_CLONE_FS | _CLONE_NEWNS) != 0:
        return _refused("unshare the mount namespace")
    if not before or _own_mount_namespace() == before:
        # Whatever is mounted from here on would be seen by the whole machine.
        return Probe(Probed.UNKNOWN, "the mount namespace is not known to be our own")
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        return _refused("make mounts private")
    # On the root: there it hides nothing from anybody, as who has that root stands below the new mount.
    if libc.mount(b"none", b"/", b"tmpfs", 0, b"size=4k") != 0:
        return _refused("mount a tmpfs")
    return Probe(Probed.OK)


def _own_mount_namespace() -> str:
    """This thread's."""
    try:
        return os.readlink("/proc/thread-self/ns/mnt")
    except OSError:
        return ""


def _refused(step: str) -> Probe:
    return Probe(Probed.FAILED, f"{step}: {os.strerror(ctypes.get_errno())}")


def try_cgroup(root: Path) -> Probe:
    """Make and remove a cgroup; in v1 below `devices`, the controller dockerd cannot do without."""
    parent = root if (root / "cgroup.controllers").exists() else root / "devices"
    if not parent.is_dir():
        return Probe(Probed.FAILED, f"no cgroup hierarchy with a devices controller below {str(root)!r}")
    folder = parent / f"supervisor-probe-{os.getpid()}"
    try:
        folder.mkdir()
    except FileExistsError:
        pass  # of a probe that was killed between the two steps
    except OSError as error:
        why = "read-only" if error.errno == errno.EROFS else error.strerror
        return Probe(Probed.FAILED, f"{str(parent)!r}: {why}")
    with contextlib.suppress(OSError):
        folder.rmdir()
    return Probe(Probed.OK)


def nat_table(proc: Path) -> Probe:
    """Whether the legacy nat table is there. Asking the kernel for it by name would make it, and with it change
    which backend is found in use; so where it is not there, dockerd's preflight tries both backends."""
    names = _text(proc / "net/ip_tables_names").split()
    return Probe(Probed.OK, "legacy") if "nat" in names else Probe(Probed.UNKNOWN, "left to the preflight")


def cgroup(places: Places, table: Sequence[Mount]) -> Cgroup:
    """F12, from the mount table and our own membership."""
    below = [mount for mount in table if Path(mount.point).is_relative_to(places.cgroup)]
    unified = [mount for mount in below if mount.kind == "cgroup2"]
    legacy = [mount for mount in below if mount.kind == "cgroup"]
    if (places.cgroup / "cgroup.controllers").exists():
        version = "v2"
    else:
        version = ("hybrid" if unified else "v1") if legacy else "none"
    lines = [line.split(":", 2) for line in _text(places.proc / "self/cgroup").splitlines()]
    names = _text(places.cgroup / "cgroup.controllers").split()
    legacy_names = [name for line in lines if len(line) == 3 for name in line[1].split(",") if name]
    own = [line[2] for line in lines if len(line) == 3 and (line[1] == "" or "devices" in line[1].split(","))]
    return Cgroup(
        version=version,
        read_only=any("ro" in mount.options for mount in (unified if version == "v2" else legacy)),
        own_path=own[-1] if own else "",
        controllers=tuple(names or legacy_names),
    )


def programs(path: str | None) -> dict[str, str]:
    """F13: those found on PATH. Their versions need a process, and are read from the engine once it runs."""
    found = {name: shutil.which(name, path=path) for name in PROGRAMS}
    return {name: where for name, where in found.items() if where}


def data_root(path: Path, table: Sequence[Mount]) -> DataRoot:
    """F14, of the nearest folder that is there."""
    real = Path(os.path.realpath(path))
    mount = mount_of(str(real), table)
    nearest = next((folder for folder in (real, *real.parents) if folder.is_dir()), Path("/"))
    free_bytes = free_inodes = 0
    with contextlib.suppress(OSError):
        figures = os.statvfs(nearest)
        free_bytes, free_inodes = figures.f_bavail * figures.f_frsize, figures.f_favail
    return DataRoot(str(path), mount.point if mount else "", mount.kind if mount else "", free_bytes, free_inodes)
