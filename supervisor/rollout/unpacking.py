"""Archives are unpacked in a child of the supervisor. Wiring."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.core.events import Publish, ReleaseUnpacking
from supervisor.process.reaper import Reaper
from supervisor.releases.manifest import Manifest
from supervisor.releases.unpack.report import Progress
from supervisor.releases.unpack.unpack import Unpacker, UnpackJob, ready

UNPACK_SECONDS = 900.0


@dataclass(frozen=True)
class Unpacking:
    """See `Unpack`. How far it is, is published."""

    app: str
    reaper: Reaper
    publish: Publish

    @asynccontextmanager
    async def ready(self) -> AsyncIterator[OneUnpacking]:
        """Raises ReleaseError."""
        async with ready(self.reaper) as unpacker:
            yield OneUnpacking(self.app, unpacker, self.publish)


@dataclass(frozen=True)
class OneUnpacking:
    """See `Unpacker`."""

    app: str
    unpacker: Unpacker
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
        await self.unpacker.unpack(job, on_progress=tell, limit_seconds=UNPACK_SECONDS)


def rest_seconds(elapsed_seconds: float, done: int, total: int) -> float | None:
    """How long the rest takes at the speed of until now; None while nothing is done."""
    return round(elapsed_seconds * max(0, total - done) / done, 1) if done else None
