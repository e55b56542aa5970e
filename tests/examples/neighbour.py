"""Another network namespace joined to this one by a cable: what can be reached from it is open to the outside."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ASK = """
import socket, sys
for port in sys.argv[2:]:
    with socket.socket() as probe:
        probe.settimeout(3)
        if probe.connect_ex((sys.argv[1], int(port))) == 0:
            print(port)
"""
_LISTEN = "0A"


@dataclass(frozen=True)
class Neighbour:
    """`address` is ours, as the neighbour sees it."""

    pid: int
    address: str

    def reaches(self, ports: set[int]) -> set[int]:
        """Which of them take its connections."""
        command = ["nsenter", "-t", str(self.pid), "-n", sys.executable, "-c", _ASK, self.address, *map(str, ports)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        return {int(port) for port in done.stdout.split()}


@contextmanager
def neighbour() -> Iterator[Neighbour]:
    """Gone with the namespace's only process, cable and all. Root only."""
    # The process ends with its standard input, so with us at the latest.
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        holder.stdin.write(b"there\n")
        holder.stdin.flush()
        holder.stdout.readline()  # from within the namespace
        name, net = f"sv{secrets.token_hex(4)}", f"169.254.{secrets.randbelow(254)}"
        first = 4 * secrets.randbelow(63)
        ours, theirs = f"{net}.{first + 1}", f"{net}.{first + 2}"
        inside = ["nsenter", "-t", str(holder.pid), "-n"]
        for command in (
            ["ip", "link", "add", name, "type", "veth", "peer", "name", "outside", "netns", str(holder.pid)],
            ["ip", "address", "add", f"{ours}/30", "dev", name],
            ["ip", "link", "set", name, "up"],
            [*inside, "ip", "address", "add", f"{theirs}/30", "dev", "outside"],
            [*inside, "ip", "link", "set", "outside", "up"],
        ):
            subprocess.run(command, check=True, capture_output=True, timeout=10)
        yield Neighbour(holder.pid, ours)
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(10)


def listening(pids: set[int]) -> set[int]:
    """The TCP ports that these processes listen on, on whatever address."""
    sockets = {inode for pid in pids for inode in _sockets(pid)}
    found: set[int] = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == _LISTEN and rest[5] in sockets:
                found.add(int(local.rsplit(":", 1)[1], 16))
    return found


def _sockets(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if match := re.fullmatch(r"socket:\[(\d+)\]", target):
                yield match[1]
    except OSError:
        return
