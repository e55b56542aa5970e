"""Where the releases of one app lie. One volume; nothing of it in the image's own layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.releases.tree import RECORDS


@dataclass(frozen=True)
class Layout:
    """The folder of one app. All on one filesystem, so that a rename moves a tree in one step."""

    root: Path

    @property
    def kept(self) -> Path:
        """Whole trees, one a release, never changed again."""
        return self.root / "releases"

    @property
    def staging(self) -> Path:
        """Our private copies of archives and the trees made of them, one folder a transaction; garbage at a boot."""
        return self.root / "staging"

    @property
    def incoming(self) -> Path:
        """Releases that were put here by hand, to be taken in."""
        return self.root / "incoming"

    @property
    def shared(self) -> Path:
        """Folders that all releases have in common."""
        return self.root / "shared"

    @property
    def snapshots(self) -> Path:
        """Snapshots of the database, one folder a transaction."""
        return self.root / "snapshots"

    @property
    def base(self) -> Path:
        """Has one link, `tree`, to the image's own tree: what releases have of that is linked through it, so that it is
        found where a release is shown in that tree's place.
        """
        return self.root / "base"

    @property
    def image_tree(self) -> Path:
        """The image's own tree, once `Base.prepare` was done."""
        return self.base / "tree"

    @property
    def base_mount(self) -> Path:
        """Has one folder, `tree`, which is mounted over there; see `supervisor/app_view.py`."""
        return self.root / "base.mount"

    @property
    def trash(self) -> Path:
        """What is being deleted."""
        return self.root / ".trash"

    @property
    def current(self) -> Path:
        """A link to the active release; derived from the state."""
        return self.root / "current"

    @property
    def previous(self) -> Path:
        """A link to the release to roll back to; derived from the state."""
        return self.root / "previous"

    @property
    def state(self) -> Path:
        """The only truth."""
        return self.root / "state.json"

    @property
    def state_before(self) -> Path:
        """The state before the last change, for a disk that lost the newer one."""
        return self.root / "state.json.1"

    @property
    def journal(self) -> Path:
        """The transaction in hand."""
        return self.root / "journal.json"

    @property
    def history(self) -> Path:
        """One line an update, each with the hash of the one before."""
        return self.root / "history.jsonl"

    @property
    def image(self) -> Path:
        """The image of the last start."""
        return self.root / "image.json"

    @property
    def reserve(self) -> Path:
        """Space kept back, so that a full disk can still be written what happened."""
        return self.root / "reserve.bin"

    def tree(self, release: str) -> Path:
        """The folder of one kept release."""
        return self.kept / release

    def records(self, release: str) -> Path:
        """Our own records within it: `manifest.json`, `manifest.json.minisig`, `links.json`."""
        return self.tree(release) / RECORDS
