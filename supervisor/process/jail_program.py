"""The program that `jail` starts: enters namespaces, narrows what is seen and allowed, runs the command, reaps.

It runs alone (`python -I -S`), before any module of ours can be found: the standard library only. What the system
refuses is written down and the rest goes on.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
# linux/sched.h
_NAMESPACES = {"network": 0x40000000, "ipc": 0x08000000, "files": 0x00020000, "processes": 0x20000000}
_NEW_USER = 0x10000000
# sys/mount.h; mount_setattr(2) came with Linux 5.12 and has one number on all machines
_READ_ONLY, _NO_SUID, _NO_DEV, _NO_EXEC, _BIND, _PRIVATE = 1, 2, 4, 8, 4096, (1 << 18) | 16384
_MOUNT_SETATTR, _RECURSIVE = 442, 0x8000
# linux/prctl.h
_DEATH_SIGNAL, _DROP_BOUND, _NO_NEW_PRIVILEGES, _AMBIENT, _AMBIENT_CLEAR = 1, 24, 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522
_SET_INTERFACE_FLAGS, _UP = 0x8914, 0x1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_TMPFS = "size=256m,mode=0777"


def main(argv: list[str]) -> int:
    """Run `argv[1:]` as the JSON in `argv[0]` says; gives its status as a shell has it."""
    spec = json.loads(argv[0])
    os.set_inheritable(spec["report"], False)
    _LIBC.prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    why = _enter(spec)
    first = os.fork()
    if first == 0:
        os._exit(_first_process(spec, argv[1:], why))
    os.close(spec["report"])
    return _status(_wait_for(first))


def _enter(spec: dict[str, Any]) -> dict[str, str]:
    why = {"user": _enter_user(), **{part: _unshare(flag) for part, flag in _NAMESPACES.items()}}
    if not why["network"]:
        with contextlib.suppress(OSError):
            _raise_loopback()
    if not why["files"]:
        why["files"] = _refusal(_narrow, spec)
    return why


def _enter_user() -> str:
    """A user namespace with this user alone in it, under its own number."""
    uid, gid = os.geteuid(), os.getegid()
    if refused := _unshare(_NEW_USER):
        return refused
    return _refusal(_map_user, uid, gid)


def _map_user(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as table:
            table.write(text)


def _unshare(flag: int) -> str:
    return _refusal(_call, "unshare", flag)


def _refusal(do: Any, *arguments: Any) -> str:
    try:
        do(*arguments)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    return ""


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        fcntl.ioctl(handle, _SET_INTERFACE_FLAGS, struct.pack("16sH14x", b"lo", _UP))


def _narrow(spec: dict[str, Any]) -> None:
    """Mount what may be written over what must not be seen, then make all the rest read-only."""
    _mount(None, "/", None, _PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in _within(spec["keep"], spec["masked"])}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in _DEVICES if os.path.exists(f"/dev/{name}")}
    masks = [path for path in spec["masked"] if os.path.isdir(path) and not os.path.islink(path)]
    for path in masks:
        _mount("tmpfs", path, "tmpfs", _NO_SUID | _NO_DEV, _TMPFS)
    for path, descriptor in kept.items():
        _show(descriptor, path)
    _hide(spec["hidden"], masks)
    _mount("tmpfs", "/dev", "tmpfs", _NO_SUID, "size=64k,mode=0755")
    for name, descriptor in devices.items():
        _show(descriptor, f"/dev/{name}")
    for name, target in (("fd", "fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        os.symlink(f"/proc/self/{target}", f"/dev/{name}")
    os.mkdir("/dev/shm")  # noqa: S108
    _mount("tmpfs", "/dev/shm", "tmpfs", _NO_SUID | _NO_DEV, _TMPFS)  # noqa: S108
    _set_attributes("/", _READ_ONLY | _NO_SUID | _NO_DEV, 0, _RECURSIVE)
    for path in (*masks, "/dev/shm"):  # noqa: S108
        _set_attributes(path, 0, _READ_ONLY, 0)
    for name in devices:  # a device on a read-only mount can be written to, on one without devices not even opened
        _set_attributes(f"/dev/{name}", 0, _NO_DEV, 0)
    for folder in ("home", "tmp"):
        os.makedirs(os.path.join(spec["scratch"], folder), exist_ok=True)


def _within(paths: list[str], masks: list[str]) -> Iterator[str]:
    """The outermost of these paths that a mask would hide; each once, in an order that nests."""
    shown: list[str] = []
    for path in sorted(set(paths)):
        if any(path.startswith(f"{mask}/") for mask in masks) and not any(path.startswith(f"{up}/") for up in shown):
            shown.append(path)
            yield path


def _show(descriptor: int, path: str) -> None:
    """Mount what a descriptor stands for at `path`, which is made."""
    if os.path.isdir(f"/proc/self/fd/{descriptor}"):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    _mount(f"/proc/self/fd/{descriptor}", path, None, _BIND)
    os.close(descriptor)


def _hide(paths: list[str], masks: list[str]) -> None:
    """An empty file in the place of each; a device in its place could not be opened."""
    if not paths or not masks:
        return
    empty = os.path.join(masks[0], ".empty")
    os.close(os.open(empty, os.O_CREAT | os.O_WRONLY, 0o444))
    for path in paths:
        _mount(empty, path, None, _BIND)
    os.unlink(empty)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str = "") -> None:
    encoded = [None if text is None else text.encode() for text in (source, target, kind)]
    if _LIBC.mount(*encoded, ctypes.c_ulong(flags), options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", target)


def _set_attributes(path: str, add: int, clear: int, flags: int) -> None:
    attributes = struct.pack("=4Q", add, clear, 0, 0)
    if _LIBC.syscall(_MOUNT_SETATTR, -100, path.encode(), flags, attributes, ctypes.c_size_t(len(attributes))) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount_setattr: {os.strerror(number)}", path)


def _first_process(spec: dict[str, Any], argv: list[str], why: dict[str, str]) -> int:
    """Process 1 of the namespace: with its end the kernel kills all the others in it."""
    _LIBC.prctl(_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if not why["files"] and not why["processes"]:
        # Read-only: /proc/sys belongs to root, and needs no capability.
        why["files"] = _refusal(_mount, "proc", "/proc", "proc", _READ_ONLY | _NO_SUID | _NO_DEV | _NO_EXEC)
    os.write(spec["report"], json.dumps(why).encode())
    os.close(spec["report"])
    command = os.fork()
    if command == 0:
        os._exit(_command(spec, argv, why))
    return _status(_wait_for(command))


def _command(spec: dict[str, Any], argv: list[str], why: dict[str, str]) -> int:
    """Become the command; comes back with a status only where it cannot."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and exec would hand that on
            signal.signal(number, signal.SIG_DFL)
        os.chdir(spec["cwd"])
        _give_up_rights()
        _limit(spec, alone=not why["user"])
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]!r}: {error.strerror}\n")
        sys.stderr.flush()
        return 127 if isinstance(error, FileNotFoundError) else 126


def _give_up_rights() -> None:
    """Without them the mounts stay as they are, root or not."""
    _LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _LIBC.prctl(_AMBIENT, _AMBIENT_CLEAR, 0, 0, 0)
    for number in range(64):
        _LIBC.prctl(_DROP_BOUND, number, 0, 0, 0)
    header, none = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _LIBC.capset(header, none)


def _limit(spec: dict[str, Any], *, alone: bool) -> None:
    # Not the address space: V8 reserves far more of it than it uses.
    _lower(resource.RLIMIT_DATA, spec["memory_bytes"])
    _lower(resource.RLIMIT_FSIZE, spec["file_bytes"])
    _lower(resource.RLIMIT_NOFILE, spec["descriptors"])
    _lower(resource.RLIMIT_CPU, spec["cpu_seconds"])
    _lower(resource.RLIMIT_CORE, 0)
    if alone:  # elsewhere all processes of this user count, whoever started them
        _lower(resource.RLIMIT_NPROC, spec["processes"])


def _lower(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    limit = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (limit, limit))


def _wait_for(wanted: int) -> int:
    """Reap until this one has ended; gives its wait status."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return status


def _status(wait_status: int) -> int:
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
