"""Shows a release at the app's own folder, for apps with fixed paths; says where that is needed and lacking."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.process.view import Mount
from supervisor.releases.layout import Layout


def view_of(tree: Path, app_dir: Path) -> tuple[Mount, ...]:
    """The release's tree in the place of the image's, which stays reachable for the links that lead into it."""
    layout = Layout(tree.parents[1])
    through = layout.base / "tree"
    return (
        Mount(str(layout.base_mount), str(layout.base)),
        Mount(str(app_dir), str(through)),
        Mount(str(tree), str(app_dir)),
    )


def check_paths(argv: Sequence[str], tree: Path, app_dir: Path) -> None:
    """A command with the image's own folder in it runs the image's code, whatever release is applied.

    Raises ConfigurationError where the release has that file itself.
    """
    for word in argv:
        for named in _named(word, app_dir):
            place = tree / named
            if place.exists() and place.resolve().is_relative_to(tree.resolve()):
                raise ConfigurationError(
                    f"cannot run the release: the command names {str(app_dir / named)!r}, which is the image's own "
                    f"file; name it from the app's folder on ({named!r}), in APP_COMMAND or as `command` of the "
                    f"release, or have releases shown there with SUPERVISOR_RELEASE_MOUNT=true"
                )


def _named(word: str, app_dir: Path) -> list[str]:
    return re.findall(rf"(?:^|[\s'\"=:;&|(]){re.escape(str(app_dir))}/([^\s'\":;&|)]+)", word)
