"""Who keeps the private engine (pid and start time: a pid may be used again), and what the machine was like before."""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.engine_rig import residue
from tests.engine_rig.places import Places

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Record:
    """Written by the keeper before it changes anything; removed when all of it is undone."""

    pid: int
    start_time: int
    network: str
    before: residue.Before

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({**asdict(self), "boot_id": _BOOT_ID.read_text()}) + "\n")

    @property
    def keeper_lives(self) -> bool:
        return start_time(self.pid) == self.start_time

    def clear(self, places: Places) -> None:
        """Undo what the ended engine left behind."""
        residue.clear(
            bridge=places.bridge,
            network=ipaddress.IPv4Network(self.network),
            networks_file=places.networks,
            cgroup=places.cgroup,
            before=self.before,
        )
        for path in (places.record, places.pid_file, places.socket):
            path.unlink(missing_ok=True)


def read(path: Path) -> Record | None:
    """None where there is none, or only one from before a reboot, which undid everything."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if found.pop("boot_id") != _BOOT_ID.read_text():
        return None
    return Record(**{**found, "before": residue.Before(**found["before"])})


def start_time(pid: int) -> int:
    """In clock ticks since boot, field 22 of proc(5) stat; 0 for no process and for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
