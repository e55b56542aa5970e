"""A folder with an archive, a staging folder and things that must stay as they are; and ways to unpack there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import supervisor
from supervisor.releases.model import Compression
from supervisor.releases.unpack.extract import extract
from supervisor.releases.unpack.job import Extracted, Job
from supervisor.releases.unpack.limits import MIB, Limits

LIMIT_SECONDS = 60
MAX_BYTES = 64 * MIB

# The child itself, and then what it used: peak memory by the kernel's mark of this very program (that of getrusage
# counts in what the parent had when it forked).
MEASURED = """
import json, sys, time
from supervisor.releases.unpack.child import main
status = open("/proc/self/status")  # it opens nothing any more once it has begun
code = main()
with status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"peak_kib": peak, "cpu_seconds": time.process_time()}), file=sys.stderr)
raise SystemExit(code)
"""


@dataclass(frozen=True)
class Said:
    """What a child said last, and what it used."""

    result: dict[str, Any]
    lines: list[dict[str, Any]]
    peak_mib: float
    cpu_seconds: float

    @property
    def reason(self) -> str:
        assert self.result["result"] == "refused", self.result
        return str(self.result["reason"])


class Rig:
    """`staging/txn/tree` is where trees are made; `outside` is what hostile archives aim at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside = root / "outside"
        self.tree = root / "staging" / "txn" / "tree"
        self.outside.mkdir()
        self.tree.parent.mkdir(parents=True)
        (self.outside / "victim").write_text("as it was")
        self.archive = root / "archive"

    def job(
        self,
        data: bytes | None,
        compression: Compression = Compression.ZSTD,
        *,
        max_bytes: int = MAX_BYTES,
        max_entries: int = 10_000,
        case_insensitive: bool = False,
        cpu_seconds: int = LIMIT_SECONDS,
    ) -> Job:
        """For an archive of these bytes, or for the one that is there."""
        if data is not None:
            self.archive.write_bytes(data)
        with self.archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Job(
            archive=str(self.archive),
            size=self.archive.stat().st_size,
            sha256=sha256,
            compression=compression,
            destination=str(self.tree),
            limits=Limits(max_bytes, max_entries, cpu_seconds),
            parent=os.getpid(),
            case_insensitive=case_insensitive,
        )

    def extract(self, data: bytes, compression: Compression = Compression.ZSTD, **options: Any) -> Extracted:
        """Within this process: quick, without its limits."""
        return extract(self.job(data, compression, **options), lambda made, files: None)

    def run_child(self, job: Job) -> Said:
        """In the program itself, under its limits; CalledProcessError where it does not come to its end."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(supervisor.__file__).parent.parent)}
        done = subprocess.run(
            [sys.executable, "-c", MEASURED],
            input=job.as_json(),
            capture_output=True,
            timeout=LIMIT_SECONDS,
            env=environment,
            check=True,
        )
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        used = json.loads(done.stderr)
        return Said(lines[-1], lines, used["peak_kib"] / 1024, used["cpu_seconds"])

    def around(self) -> dict[str, tuple[object, ...]]:
        """Everything but what is in the folder of the transaction: kind, mode, size, time and contents."""
        found: dict[str, tuple[object, ...]] = {}
        for folder, folders, files in os.walk(self.root):
            if Path(folder) == self.tree.parent:
                folders.clear()
                continue
            for name in (*folders, *files):
                found[os.path.join(folder, name)] = _describe(Path(folder, name))
        return found


def _describe(place: Path) -> tuple[object, ...]:
    status = place.lstat()
    if place.is_symlink():
        return ("link", os.readlink(place))
    if place.is_dir():
        # The transaction's own folder gets the tree, and with it another time.
        return ("folder", status.st_mode, 0 if place.name == "txn" else status.st_mtime_ns)
    return (status.st_mode, status.st_size, status.st_mtime_ns, place.read_bytes())
