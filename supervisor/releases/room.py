"""Makes room for a release: what need not be kept goes before an update is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.space import Need, read_space, why_no_room


@dataclass(frozen=True)
class Room:
    """The filesystem of `place`; `prune` deletes what need not be kept, `snapshot_bytes` guesses a snapshot's size."""

    place: Path
    prune: Callable[[], Awaitable[object]]
    snapshot_bytes: Callable[[Manifest], int] = lambda manifest: 0

    async def make(self, manifest: Manifest) -> None:
        """Raises ReleaseError where there is not enough, with figures; OSError."""
        if not await self._lacks(manifest):
            return
        await self.prune()
        if lacks := await self._lacks(manifest):
            raise ReleaseError(f"cannot keep the release in {str(self.place)!r}: {'; '.join(lacks)}")

    async def _lacks(self, manifest: Manifest) -> list[str]:
        space = await anyio.to_thread.run_sync(read_space, self.place)
        return why_no_room(Need.of(manifest.tree, self.snapshot_bytes(manifest)), space)
