"""Archives are unpacked in a child of the supervisor. Wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from supervisor.process.reaper import Reaper
from supervisor.releases.manifest import Manifest
from supervisor.releases.unpack.report import Progress
from supervisor.releases.unpack.unpack import UnpackJob, unpack

UNPACK_SECONDS = 900.0


@dataclass(frozen=True)
class Unpacking:
    """See `Unpack`. `on_progress` is called as bytes come in."""

    reaper: Reaper
    on_progress: Callable[[Progress], None]

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        """Raises ReleaseError."""
        job = UnpackJob.of(manifest, archive, to)
        await unpack(self.reaper, job, on_progress=self.on_progress, limit_seconds=UNPACK_SECONDS)
