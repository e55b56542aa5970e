"""What there is of one app's releases, for people and for who starts one: listed, read, compared. Changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.releases.history import Line
from supervisor.releases.manifest import Manifest, parse_manifest
from supervisor.releases.model import BAKED, ReleaseError
from supervisor.releases.records import Records, in_thread
from supervisor.releases.recovery import present
from supervisor.releases.seal import MANIFEST_FILE, why_damaged
from supervisor.releases.snapshots import Snapshot, kept
from supervisor.releases.state import Known, State


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One release, for people. `use` is empty, or why it is kept: active, on trial, the way back."""

    release: str
    version: str
    sequence: int
    use: str
    confirmed: bool
    failed: str
    at: str
    key: str
    given_up: str


class Kept:
    """Disk work is done in threads."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._layout = records.layout

    def tree(self, release: str = "") -> Path | None:
        """The folder of the active release, or of `release`; None for the image's own."""
        name = release or self._records.state.active
        return None if name == BAKED else self._layout.tree(name)

    async def manifest(self, release: str) -> Manifest | None:
        """What a kept release says of itself; None for the image's own. Raises ReleaseError."""
        if release == BAKED:
            return None
        try:
            data = await in_thread((self._layout.records(release) / MANIFEST_FILE).read_bytes)
        except OSError as error:
            raise ReleaseError(
                f"cannot read the manifest of release {release}: {error.strerror}; apply the release again"
            ) from error
        return parse_manifest(data)

    async def listed(self) -> list[Listed]:
        """All that is known, the newest first."""
        there = await in_thread(lambda: present(self._layout))
        rows = [_row(self._records.state, release) for release in sorted({*there, BAKED})]
        return sorted(rows, key=lambda row: row.sequence, reverse=True)

    async def why_damaged(self, release: str) -> str:
        """What is wrong with a kept release's files; empty where they are as they were sealed. Reads all of them."""
        tree = self.tree(release)
        return "" if tree is None else await in_thread(lambda: why_damaged(tree))

    async def history(self) -> list[Line]:
        """What was done, the oldest first."""
        return await in_thread(self._records.history.read)

    async def snapshots(self, release: str) -> list[Snapshot]:
        """Those of the database that were taken before it, the oldest first."""
        return [each for each in await in_thread(lambda: kept(self._layout)) if each.release == release]

    async def verify_history(self) -> int:
        """How many lines there are. Raises ReleaseError where one was changed."""
        return await in_thread(self._records.history.verify)


def _row(state: State, release: str) -> Listed:
    uses = {state.previous: "previous", state.good: "good"}
    uses |= {state.active: "on trial" if state.trial else "active"}
    known = state.releases.get(release, Known(confirmed=release == BAKED))
    return Listed(
        release=release,
        version=known.version,
        sequence=known.sequence,
        use=uses.get(release, ""),
        confirmed=known.confirmed or release == BAKED,
        failed=known.failed,
        at=known.at,
        key=known.key,
        given_up=known.given_up,
    )
