"""Where the app runs from: the image's own folder, or a release that says some things of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import Settings, parse_command
from supervisor.releases.manifest import Manifest


@dataclass(frozen=True)
class AppHome:
    """`tree` and `manifest` are None for the image's own."""

    tree: Path | None = None
    manifest: Manifest | None = None

    def applied(self, settings: Settings) -> Settings:
        """The settings with what the release says. Raises ConfigurationError for a command that is none."""
        values: dict[str, Any] = {"app_dir": self.tree}
        if self.manifest is not None:
            values |= _said(self.manifest)
        given = {name: value for name, value in values.items() if value is not None}
        return settings.model_copy(update=given) if given else settings

    def lacking(self, environ: dict[str, str]) -> list[str]:
        """Variables that the release needs and that are not set."""
        wanted = self.manifest.environment if self.manifest is not None else ()
        return [name for name in wanted if not environ.get(name)]


def _said(manifest: Manifest) -> dict[str, Any]:
    folder = manifest.migrations.folder
    return {
        "app_command": _command(manifest),
        "app_health_path": manifest.health.path,
        "app_health_timeout_seconds": manifest.health.timeout_seconds,
        "app_start_seconds": manifest.health.start_seconds,
        "overlap": manifest.front.overlap,
        "drain_seconds": manifest.front.drain_seconds,
        "migrate_dir": Path(folder) if folder is not None else None,
    }


def _command(manifest: Manifest) -> tuple[str, ...] | None:
    if manifest.command is None:
        return None
    try:
        parsed = parse_command(manifest.command)
    except ValueError as error:
        raise ConfigurationError(f"cannot run the command of release {manifest.version}: {error}") from None
    if not isinstance(parsed, tuple):
        raise ConfigurationError(f"cannot run the command of release {manifest.version}: {manifest.command!r} is none")
    return parsed
