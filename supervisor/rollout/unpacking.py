"""Archives are unpacked in a child of the supervisor. Wiring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.core.events import Publish, ReleaseUnpacking
from supervisor.process.reaper import Reaper
from supervisor.releases.manifest import Manifest
from supervisor.releases.unpack.report import Progress
from supervisor.releases.unpack.unpack import UnpackJob, unpack

UNPACK_SECONDS = 900.0


@dataclass(frozen=True)
class Unpacking:
    """See `Unpack`. How far it is, is published."""

    app: str
    reaper: Reaper
    publish: Publish

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        """Raises ReleaseError."""
        started, total = anyio.current_time(), manifest.tree.bytes

        def tell(progress: Progress) -> None:
            eta = rest_seconds(anyio.current_time() - started, progress.bytes, total)
            self.publish(
                ReleaseUnpacking(
                    app=self.app, files=progress.files, bytes=progress.bytes, total_bytes=total, eta_seconds=eta
                )
            )

        job = UnpackJob.of(manifest, archive, to)
        await unpack(self.reaper, job, on_progress=tell, limit_seconds=UNPACK_SECONDS)


def rest_seconds(elapsed_seconds: float, done: int, total: int) -> float | None:
    """How long the rest takes at the speed of until now; None while nothing is done."""
    return round(elapsed_seconds * max(0, total - done) / done, 1) if done else None
