"""The migrations of a release, before its code serves. Wiring."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.app_home import AppHome
from supervisor.core.events import Publish
from supervisor.migrate import migrate
from supervisor.parts import Parts
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError


@dataclass(frozen=True)
class Database:
    """See `Schema`."""

    parts: Parts
    publish: Publish

    async def save(self, tree: Path, manifest: Manifest, folder: Path) -> bool:
        """Raises ReleaseError where a snapshot is asked for."""
        if manifest.migrations.snapshot:
            raise ReleaseError(
                "cannot save the database before the update: this supervisor does not take snapshots yet; take one "
                "yourself, and build the release without `migrations.snapshot`"
            )
        return False

    async def expand(self, tree: Path, manifest: Manifest) -> None:
        """Apply what is pending in the release's tree. Raises MigrationError, UnreachableError, ConfigurationError."""
        await migrate(self.parts.plan_in(AppHome(tree, manifest)).migrations, self.publish)
