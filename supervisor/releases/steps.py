"""What an update is carried out with: what serves, the database, unpacking and the disk, as Protocols."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from supervisor.releases.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """A release that may be applied. `data` are the manifest's exact bytes, `signatures` those that were given.

    `key` is the id of the key that signed it; empty for one that nobody signed.
    """

    release: str
    manifest: Manifest
    data: bytes
    digest: str
    key: str = ""
    signatures: tuple[bytes, ...] = ()


class Unpacker(Protocol):
    """Makes the tree of one archive."""

    async def unpack(self, archive: Path, to: Path, manifest: Manifest) -> None:
        """Make `to`, which does not exist, and prove that it is what the manifest says. Raises ReleaseError; what is
        left in `to` then is the caller's.
        """


class Unpack(Protocol):
    """Has the trees of archives made."""

    def ready(self) -> AbstractAsyncContextManager[Unpacker]:
        """For the block there is one that has not to be waited for. Raises ReleaseError."""


class Fill(Protocol):
    """Completes a tree with what it does not bring itself."""

    async def fill(self, tree: Path, manifest: Manifest) -> None:
        """Link, or copy, what comes from the image's own tree. Raises ReleaseError."""

    def trees(self) -> list[Path]:
        """The image's own tree, where there is one."""


class Schema(Protocol):
    """The database, as far as releases change it."""

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        """Save the database into `folder` where the release asks for it, proved to be whole; else False."""

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        """Apply what the release adds, while the old code serves. Raises MigrationError."""


class Contracts(Protocol):
    """The contract migrations of what serves."""

    async def due(self) -> tuple[str, ...] | None:
        """Those that were not applied yet; None where there is no such kind: `apply` says why.

        Raises MigrationError, UnreachableError.
        """

    async def apply(self) -> tuple[str, ...]:
        """Apply them; gives their names. Raises SupervisorError, StoppingError."""


class Candidate(Protocol):
    """What serves."""

    async def try_out(
        self, tree: Path | None, manifest: Manifest | None, commit: Callable[[], Awaitable[None]]
    ) -> None:
        """Start it beside what serves and prove it; then `commit`, then move traffic, and watch it for the bake.

        Without a tree and a manifest it is the image's own.

        Raises RejectedError where it never served, RolledBackError where traffic is back with the old one.
        """


class Space(Protocol):
    """The disk."""

    async def make(self, manifest: Manifest) -> None:
        """Make room for a tree. Raises ReleaseError where there is not enough, saying how much is needed."""


@dataclass
class Report:
    """What a transaction came to; seconds by phase."""

    release: str = ""
    before: str = ""
    phases: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What a transaction is carried out with. `owner` (uid, gid) is whom shared folders belong to; None: to us."""

    unpack: Unpack
    fill: Fill
    schema: Schema
    candidate: Candidate
    space: Space
    owner: tuple[int, int] | None = None
