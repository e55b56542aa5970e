"""What /proc tells of a process under measurement. Its own reader: the supervisor's is part of what is measured."""

from __future__ import annotations

import os
from pathlib import Path


def status(pid: int | str, task: int | None = None) -> dict[str, str]:
    """The fields of a process's, or one thread's, status; empty when it is gone."""
    path = f"/proc/{pid}/status" if task is None else f"/proc/{pid}/task/{task}/status"
    try:
        with open(path) as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    except OSError:
        return {}


def takes_signals(pid: int, numbers: tuple[int, ...]) -> bool:
    """Whether the signals are caught, or blocked for a sigwait to take, so that none is lost any more.

    While a process is in sigtimedwait the kernel shows what it waits for as not blocked, so that is asked too.
    """
    fields = status(pid)
    if not fields:
        return False
    held = int(fields["SigCgt"], 16) | int(fields["SigBlk"], 16)
    if all(held >> (number - 1) & 1 for number in numbers):
        return True
    try:
        return "sigtimedwait" in Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        return False


def children(pid: int | str) -> list[int]:
    """Direct children, zombies included."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found.extend(int(word) for word in file.read().split())
    except OSError:
        pass
    return found


def command_line(pid: int) -> list[str]:
    """Its argv; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def memory_mib(pid: int) -> tuple[float, float]:
    """(RSS, PSS) in MiB."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        fields = {line.split(":")[0]: line.split()[1] for line in file if line.count(":") == 1}
    return int(fields["Rss"]) / 1024, int(fields["Pss"]) / 1024


def switches(pid: int) -> dict[int, tuple[str, int]]:
    """Thread id -> (name, voluntary context switches so far)."""
    found: dict[int, tuple[str, int]] = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        fields = status(pid, int(task))
        if fields:
            found[int(task)] = (fields["Name"], int(fields["voluntary_ctxt_switches"]))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time used so far, user and system."""
    with open(f"/proc/{pid}/stat") as file:
        words = file.read().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """Open file descriptors."""
    return len(os.listdir(f"/proc/{pid}/fd"))
