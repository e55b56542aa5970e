"""Preflight facts about the machine: Python, the kernel's limits, memory, disk, ports."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from supervisor.commands.fact import Fact
from supervisor.core.settings import Settings, variable
from supervisor.process.pid1 import Reaping, can_adopt_orphans
from supervisor.process.procfs import describe_port_owner
from supervisor.services.ports import bind_error

_MIB = 1024 * 1024
_LEAST_PYTHON = (3, 11)
_LEAST_MEMORY_MIB = 128  # the supervisor, Postgres, Redis and Traefik idle at about that together
_GOOD_MEMORY_MIB = 512
_LEAST_DISK_MIB = 128  # an empty Postgres cluster takes 40, its first log segments 32
_GOOD_DISK_MIB = 1024
_LEAST_FILES = 256
_GOOD_FILES = 1024
_EVERYWHERE = ""


def python() -> Fact:
    """The interpreter."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < _LEAST_PYTHON:
        return Fact.failed("python", found, "install Python 3.11 or newer")
    return Fact.ok("python", found)


def reaping() -> Fact:
    """Whether orphans would reach us."""
    match can_adopt_orphans():
        case Reaping.PID1:
            return Fact.ok("orphans", "reaped: we are PID 1")
        case Reaping.SUBREAPER:
            return Fact.ok("orphans", "reaped: the kernel lets us be a subreaper")
        case Reaping.NONE:
            return Fact.warning(
                "orphans",
                "cannot be reaped: neither PID 1 nor a subreaper",
                "run the supervisor as the container's ENTRYPOINT, without another init",
            )


def memory() -> Fact:
    """What the machine, or the container's limit, leaves for all of it."""
    total = _memory_total()
    limit = _memory_limit()
    usable = min(total, limit or total) // _MIB
    found = f"{usable} MiB" + (" (limit of the container)" if limit and limit < total else "")
    if usable < _LEAST_MEMORY_MIB:
        return Fact.failed("memory", found, f"give it {_LEAST_MEMORY_MIB} MiB or more")
    if usable < _GOOD_MEMORY_MIB:
        return Fact.warning("memory", found, f"Postgres, Redis, Traefik and an app want {_GOOD_MEMORY_MIB} MiB or more")
    return Fact.ok("memory", found)


def _memory_total() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _memory_limit() -> int | None:
    """The control group's limit in bytes, as a container sees its own (version 2, then 1)."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # else `max`
            return int(text)
    return None


def open_files() -> Fact:
    """The limit of file descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{'no limit' if soft == resource.RLIM_INFINITY else soft} for us"
    if soft == resource.RLIM_INFINITY or soft >= _GOOD_FILES:
        return Fact.ok("open files", found)
    mend = f"ulimit -n {min(hard, 65536) if hard > 0 else 65536}, or --ulimit nofile=65536 for a container"
    return (Fact.failed if soft < _LEAST_FILES else Fact.warning)("open files", found, mend)


def disk(folder: Path) -> Fact:
    """Room where the state is kept."""
    room = os.statvfs(nearest_there(folder))
    free = room.f_bavail * room.f_frsize // _MIB
    found = f"{free} MiB free for {folder}"
    mend = "make room, or set SUPERVISOR_STATE_DIR to a larger disk"
    if free < _LEAST_DISK_MIB:
        return Fact.failed("disk", found, mend)
    if room.f_files and room.f_favail < 10_000:
        return Fact.warning("disk", f"{found}, but only {room.f_favail} files can be made", mend)
    return Fact.warning("disk", found, mend) if free < _GOOD_DISK_MIB else Fact.ok("disk", found)


def nearest_there(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    for part in (path, *path.parents):
        if os.path.lexists(part):
            return part
    return Path("/")


def watches() -> Fact:
    """Whether the trigger file can be watched by inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return Fact.warning(
            "inotify",
            f"not to be had: {os.strerror(ctypes.get_errno())}",
            "sysctl fs.inotify.max_user_instances=512; until then a touch of the trigger file is seen within a second",
        )
    os.close(descriptor)
    limits = {name: _sysctl(f"fs/inotify/max_user_{name}") for name in ("watches", "instances")}
    return Fact.ok("inotify", ", ".join(f"{value} {name}" for name, value in limits.items()))


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return "unknown"


def answers(path: Path) -> bool:
    """Whether somebody listens on a unix socket."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            probe.connect(str(path))
    except OSError:
        return False
    return True


def ports(settings: Settings, *, running: bool) -> Iterator[Fact]:
    """The public ports. Taken ones are no failure where a supervisor runs: they are most likely its own."""
    yield _port("port of the app", settings.port, "port", fallback=None, running=running)
    if "traefik" in settings.services:
        yield _port(
            "port for http", settings.http_port or 80, "http_port", _fallback(settings.http_port, 8080), running
        )
        yield _port(
            "port for https", settings.https_port or 443, "https_port", _fallback(settings.https_port, 8443), running
        )


def _fallback(chosen: int | None, otherwise: int) -> int | None:
    """Where no port was asked for there is a second choice."""
    return otherwise if chosen is None else None


def _port(name: str, port: int, setting: str, fallback: int | None, running: bool) -> Fact:
    reason = bind_error(port, _EVERYWHERE)
    if not reason:
        return Fact.ok(name, f"{port} is free")
    if reason == errno.EADDRINUSE:
        found, mend = f"{port} is taken by {describe_port_owner(port)}", "stop that"
    else:
        found, mend = f"{port} is not ours to take: {os.strerror(reason)}", "run as root"
    if running:
        return Fact.note(name, found)
    if fallback is not None:
        return Fact.note(name, f"{found}; {fallback} is used instead", f"{mend}, or set {variable(setting)}")
    return Fact.failed(name, found, f"{mend}, or set {variable(setting)} to another port")
