"""Engine processes in our PID namespace, and what pid files say of them (F8, F9, F15, F18). Reads /proc only."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from supervisor.engine.facts import ENGINE_NAMES, PidFile, PidFileState, Process, RuntimeRecord

_MAX_PID_BYTES = 32
_MAX_PID = 4194304  # PID_MAX_LIMIT, linux/threads.h
_HOST_INITS = frozenset({"systemd", "init", "openrc-init", "runit", "launchd", "procd"})


class ProcessTable:
    """Reads processes below one /proc."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc

    def read(self, pid: int) -> Process | None:
        """One process, or None when it is gone."""
        folder = self._proc / str(pid)
        fields = _stat(folder)
        if fields is None:
            return None
        comm, state, ppid, start_ticks = fields
        parent = _stat(self._proc / str(ppid)) if ppid else None
        return Process(
            pid=pid,
            comm=comm,
            state=state,
            ppid=ppid,
            parent=parent[0] if parent else "",
            start_ticks=start_ticks,
            age_seconds=self._age_seconds(start_ticks),
            exe=_link(folder / "exe"),
            command=_words(folder / "cmdline"),
            same_mounts=self._same_mounts(folder),
        )

    def engines(self) -> tuple[Process, ...]:
        """Every process with an engine's name, zombies too."""
        found = (self.read(pid) for pid in self.pids() if self._comm(pid) in ENGINE_NAMES)
        return tuple(process for process in found if process is not None)

    def pids(self) -> list[int]:
        """Those visible."""
        try:
            return sorted(int(name) for name in os.listdir(self._proc) if name.isdigit())
        except OSError:
            return []

    def _comm(self, pid: int) -> str:
        """Of zombies too, whose command line is empty."""
        try:
            return (self._proc / str(pid) / "comm").read_text(errors="replace").strip()
        except OSError:
            return ""

    def _same_mounts(self, folder: Path) -> bool | None:
        """Needs the rights of ptrace(2) over the process."""
        theirs, ours = _link(folder / "ns/mnt"), _link(self._proc / "self/ns/mnt")
        return theirs == ours if theirs and ours else None

    def _age_seconds(self, start_ticks: int) -> float:
        with contextlib.suppress(OSError, ValueError, IndexError):
            uptime = float((self._proc / "uptime").read_text().split()[0])
            return round(max(0.0, uptime - start_ticks / os.sysconf("SC_CLK_TCK")), 1)
        return 0.0

    def shares_host_pids(self, own_pid: int) -> bool:
        """F15: kernel threads are seen in the host's namespace only; else PID 1 is a host's init and we have no
        other number than this one."""
        if self._comm(2) == "kthreadd":
            return True
        numbers: list[str] = []
        with contextlib.suppress(OSError):
            for line in (self._proc / "self/status").read_text(errors="replace").splitlines():
                if line.startswith("NSpid:"):
                    numbers = line.split()[1:]
        return len(numbers) == 1 and own_pid != 1 and self._comm(1) in _HOST_INITS

    def pid_file(self, path: Path) -> PidFile:
        """What a pid file proves."""
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_PID_BYTES)
        except FileNotFoundError:
            return PidFile(str(path), PidFileState.ABSENT)
        except OSError:
            return PidFile(str(path), PidFileState.GARBAGE)
        if not text.strip().isdigit() or not 0 < int(text) <= _MAX_PID:
            return PidFile(str(path), PidFileState.GARBAGE)
        pid = int(text)
        process = self.read(pid)
        if process is None:
            return PidFile(str(path), PidFileState.DEAD, pid)
        if not process.is_alive:
            return PidFile(str(path), PidFileState.ZOMBIE, pid, process.comm)
        state = PidFileState.ENGINE if _is_engine(process) else PidFileState.STRANGER
        return PidFile(str(path), state, pid, process.comm)

    def listener(self, inodes: Iterable[int]) -> Process | None:
        """Who holds one of these listening sockets; an engine first, as launchers may hold it too."""
        wanted = {f"socket:[{inode}]" for inode in inodes}
        holders = [pid for pid in self.pids() if wanted and self._holds(pid, wanted)]
        processes = [process for process in map(self.read, holders) if process is not None]
        processes.sort(key=lambda process: not process.is_dockerd)
        return processes[0] if processes else None

    def _holds(self, pid: int, wanted: set[str]) -> bool:
        folder = self._proc / str(pid) / "fd"
        try:
            return any(_link(folder / name) in wanted for name in os.listdir(folder))
        except OSError:
            return False

    def listening_inodes(self, port: int) -> set[int]:
        """Of TCP sockets that listen on `port` in our network namespace."""
        inodes: set[int] = set()
        for table in ("net/tcp", "net/tcp6"):
            with contextlib.suppress(OSError):
                for line in (self._proc / table).read_text().splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                        inodes.add(int(fields[9]))
        return inodes


def _is_engine(process: Process) -> bool:
    """Same name, program and mount namespace; what we may not look at is not held against it."""
    program = os.path.basename(process.exe.removesuffix(" (deleted)"))
    return (
        process.comm in ENGINE_NAMES and (not program or program in ENGINE_NAMES) and process.same_mounts is not False
    )


def _stat(folder: Path) -> tuple[str, str, int, int] | None:
    """Name, state, parent and start (field 22) of /proc/<pid>/stat, proc(5)."""
    try:
        text = (folder / "stat").read_text(errors="replace")
    except OSError:
        return None
    # The name may hold spaces and brackets, so the fields are counted from the last bracket.
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    if len(fields) < 20:
        return None
    return head.partition("(")[2], fields[0], int(fields[1]), int(fields[19])


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _words(path: Path) -> tuple[str, ...]:
    try:
        return tuple(path.read_bytes().decode(errors="replace").split("\0")[:-1])
    except OSError:
        return ()


def read_record(path: Path | None) -> RuntimeRecord | None:
    """F18; a torn or foreign file is no record."""
    if path is None:
        return None
    try:
        return RuntimeRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError):
        return None
