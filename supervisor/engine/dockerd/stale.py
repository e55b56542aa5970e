"""What a daemon that is gone left behind, and how much of it goes before the next one starts.

A pid file is judged by the process it names, never by being there: pids are reused at once in a container.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import mounts
from supervisor.engine.dockerd.mounts import Mount
from supervisor.engine.dockerd.places import Places
from supervisor.process import procfs
from supervisor.process.procfs import Stat

ENGINE_PROGRAMS = ("dockerd", "containerd", "containerd-shim")
COMM_LENGTH = 15  # the kernel cuts names there
_DEAD_STATES = "ZX"


class PidFile(StrEnum):
    """Whom a pid file names."""

    ABSENT = "absent"
    GARBAGE = "garbage"
    DEAD = "dead"
    ZOMBIE = "zombie"
    STRANGER = "stranger"
    LIVE = "live"


def judge(
    text: str | None, look: Callable[[int], Stat | None], *, program: str, command_line: str, mark: str
) -> PidFile:
    """Judge a pid file's text. It is `LIVE` only where name and command line (which must hold `mark`) agree with it."""
    if text is None:
        return PidFile.ABSENT
    if not text.strip().isascii() or not text.strip().isdigit():
        return PidFile.GARBAGE
    found = look(int(text))
    if found is None:
        return PidFile.DEAD
    if found.state in _DEAD_STATES:
        return PidFile.ZOMBIE
    if found.comm != program[:COMM_LENGTH] or mark not in command_line:
        return PidFile.STRANGER
    return PidFile.LIVE


class SocketPath(StrEnum):
    """What lies where the API socket shall be."""

    ABSENT = "absent"
    SOCKET = "socket"
    EMPTY_FOLDER = "empty folder"
    FOLDER = "folder"
    EMPTY_FILE = "empty file"
    DANGLING = "dangling link"
    OTHER = "other"


def look_at(path: Path) -> SocketPath:
    """What is there, links followed to their end."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return SocketPath.DANGLING if path.is_symlink() else SocketPath.ABSENT
    except OSError:
        return SocketPath.OTHER
    if stat.S_ISSOCK(found.st_mode):
        return SocketPath.SOCKET
    if stat.S_ISDIR(found.st_mode):
        return SocketPath.FOLDER if any(path.iterdir()) else SocketPath.EMPTY_FOLDER
    if stat.S_ISREG(found.st_mode) and found.st_size == 0:
        return SocketPath.EMPTY_FILE
    return SocketPath.OTHER


def may_remove(path: str, kind: SocketPath, *, mounted: bool, answers: bool) -> bool:
    """Whether to remove it. Raises where dockerd must not start: over a mount, a living socket, anybody's files."""
    if kind is SocketPath.ABSENT:
        return False
    if mounted and kind in (SocketPath.FOLDER, SocketPath.EMPTY_FOLDER):
        raise EngineError(
            "E09",
            f"cannot listen on {path!r}: it is a mounted folder, as the host had no socket there when this container "
            f"was made; on the host stop Docker, remove that folder, start Docker, and make this container anew",
        )
    if mounted:
        raise EngineError(
            "E12",
            f"cannot listen on {path!r}: a mount lies over it; drop the mount, or set another socket path for dind",
        )
    if kind in (SocketPath.FOLDER, SocketPath.OTHER):
        raise EngineError("E10", f"cannot listen on {path!r}: a {_words(kind)} is in its place; move it away")
    if answers:
        raise EngineError(
            "E25", f"cannot listen on {path!r}: another process listens there; stop it, or set another socket path"
        )
    return True


def _words(kind: SocketPath) -> str:
    return "folder with content" if kind is SocketPath.FOLDER else "file that is no socket"


def answers(path: Path) -> bool:
    """Whether anybody accepts connections there; within 1 s."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return isinstance(error, TimeoutError | BlockingIOError)  # a full queue has a listener, too
    return True


def engine_runs(processes: Iterable[Stat]) -> bool:
    """Whether any daemon, containerd or shim lives here: without one, all of the exec root is garbage."""
    return any(process.state not in _DEAD_STATES and process.comm.startswith(ENGINE_PROGRAMS) for process in processes)


def read_processes() -> Iterator[Stat]:
    """Every process in our PID namespace."""
    for pid in procfs.pids():
        found = procfs.read_stat(pid)
        if found is not None:
            yield found


@dataclass(frozen=True)
class Cleaned:
    """What was removed; `cold` where no engine's process was there at all."""

    cold: bool
    removed: tuple[str, ...]


def clean(places: Places, *, table: Sequence[Mount]) -> Cleaned:
    """Remove what must not meet the next daemon; reap before this. Raises E09, E10, E12, E25 for the API socket.

    Cold, all pid files, sockets and namespace files go; warm (dockerd died, shims and containers live on) only pid
    files that name nobody of ours: the new daemon takes care of the survivors. The data root is never touched.
    """
    cold = not engine_runs(read_processes())
    removed: list[Path] = []
    for path in _stale_pid_files(places):
        _unlink(path, table, removed)
    if cold:
        for path in list(_runtime_garbage(places.exec_root, table)):
            _unlink(path, table, removed)
    _clear_socket(places.socket, table, removed)
    return Cleaned(cold, tuple(str(path) for path in removed))


def _stale_pid_files(places: Places) -> Iterator[Path]:
    marks = (
        (places.pid_file, "dockerd", str(places.config)),
        (places.containerd_pid_file, "containerd", str(places.exec_root)),
    )
    for path, program, mark in marks:
        text = _read_text(path)
        verdict = judge(text, procfs.read_stat, program=program, command_line=_command_line(text), mark=mark)
        if verdict is PidFile.LIVE and program == "dockerd":
            raise EngineError(
                "E25",
                f"cannot start dockerd: pid {(text or '').strip()} runs already on these files; stop it (kill, once) "
                f"and wait for its end",
            )
        if verdict not in (PidFile.ABSENT, PidFile.LIVE):
            yield path


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError:
        return ""


def _command_line(text: str | None) -> str:
    """Whole, unlike the one for messages: the mark stands at its end."""
    pid = (text or "").strip()
    with contextlib.suppress(OSError):
        if pid.isascii() and pid.isdigit():
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _runtime_garbage(exec_root: Path, table: Sequence[Mount]) -> Iterator[Path]:
    """Sockets, pid files and network namespace files below the exec root; what is mounted there is not entered."""
    for folder, folders, files in os.walk(exec_root):
        folders[:] = [name for name in folders if not mounts.is_mount_point(f"{folder}/{name}", table)]
        for name in files:
            path = Path(folder, name)
            if name.endswith(".pid") or Path(folder).name == "netns" or path.is_socket():
                yield path


def _unlink(path: Path, table: Sequence[Mount], removed: list[Path]) -> None:
    if mounts.is_mount_point(path, table):
        return
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise EngineError(
            "E25", f"cannot remove stale {str(path)!r}: {error.strerror}; remove it, or find out who holds it"
        ) from error
    removed.append(path)


def _clear_socket(path: Path, table: Sequence[Mount], removed: list[Path]) -> None:
    kind = look_at(path)
    mounted = mounts.is_mount_point(path.parent.resolve() / path.name, table)
    alive = kind is SocketPath.SOCKET and not mounted and answers(path)
    if may_remove(str(path), kind, mounted=mounted, answers=alive):
        _unlink(path, table, removed)
