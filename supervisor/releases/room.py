"""Makes room for a release: what need not be kept goes before an update is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.space import Need, read_space, why_no_room


async def _none(manifest: Manifest) -> int:
    return 0


@dataclass(frozen=True)
class Room:
    """The filesystem of `place`; `prune` deletes what need not be kept, `snapshot_bytes` guesses a snapshot's size."""

    place: Path
    prune: Callable[[], Awaitable[object]]
    snapshot_bytes: Callable[[Manifest], Awaitable[int]] = _none

    async def make(self, manifest: Manifest) -> None:
        """Raises ReleaseError where there is not enough, with figures; what `snapshot_bytes` raises; OSError."""
        need = Need.of(manifest.tree, await self.snapshot_bytes(manifest))
        if not await self._lacks(need):
            return
        await self.prune()
        if lacks := await self._lacks(need):
            raise ReleaseError(f"cannot keep the release in {str(self.place)!r}: {'; '.join(lacks)}")

    async def _lacks(self, need: Need) -> list[str]:
        space = await anyio.to_thread.run_sync(read_space, self.place)
        return why_no_room(need, space)
