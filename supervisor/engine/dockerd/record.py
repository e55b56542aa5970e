"""What is written down of a daemon we start: proof that a running one is ours, and that the last one ended in order."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from supervisor.engine.facts import RuntimeRecord
from supervisor.process import procfs
from supervisor.process.child import Child
from supervisor.store.files import write_atomic


def record_of(child: Child, *, install_uuid: str, data_root: Path, socket: Path) -> RuntimeRecord:
    """The record of a daemon just spawned, or of one that listens by now: then with its socket's inode."""
    try:
        inode = socket.stat().st_ino
    except OSError:
        inode = 0
    return RuntimeRecord(
        pid=child.pid,
        start_ticks=child.start_ticks,
        boot_id=procfs.boot_id(),
        instance=install_uuid,
        data_root=str(data_root),
        socket_inode=inode,
    )


def write_record(path: Path, record: RuntimeRecord) -> None:
    """Replace the record; not durable, as a power cut ends the daemon too. Raises OSError."""
    write_atomic(path, json.dumps(asdict(record)), durable=False)


class LastStop:
    """The marker in the data root: there exactly while no daemon was started since the last orderly stop."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def begin(self, *, used: bool) -> bool:
        """A daemon is about to start: drop the marker; gives whether the last one ended in order.

        A root that was never `used` counts as such.
        """
        clean = self._marker.exists() or not used
        self._marker.unlink(missing_ok=True)
        return clean

    def ended_in_order(self) -> None:
        """Write it, durably. Raises OSError."""
        write_atomic(self._marker, "the daemon ended in order\n")
