"""Which commands run the image's own code though a release is applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.planning.view import check_paths, view_of
from supervisor.releases.layout import Layout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A release that has `server.js` itself, and `node_modules` of the image in /app."""
    tree = Layout(tmp_path).tree("1.0-abc")
    (tree / "bin").mkdir(parents=True)
    (tree / "server.js").write_text("")
    (tree / "bin" / "run it").write_text("")
    (tmp_path / "image" / "serve").mkdir(parents=True)
    (tree / "node_modules").symlink_to(tmp_path / "image")
    return tree


@pytest.mark.parametrize(
    "argv",
    [
        ("node", "/app/server.js"),
        ("node", "--require=/app/server.js"),
        ("sh", "-c", "cd /tmp && exec node /app/server.js --fast"),
        ("sh", "-c", "node '/app/server.js'"),
        ("sh", "-c", "PATH=/app/bin:$PATH run"),
    ],
)
def test_a_command_that_names_the_image_s_own_file_is_refused(argv: tuple[str, ...], tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="SUPERVISOR_RELEASE_MOUNT=true"):
        check_paths(argv, tree, Path("/app"))


@pytest.mark.parametrize(
    "argv",
    [
        ("node", "server.js"),
        ("/app/node_modules/serve", "--port", "80"),
        ("node", "/apple/server.js"),
        ("node", "/srv/app/server.js"),
        ("node", "/app/gone.js"),
        ("node", "server.js", "--root", "/app"),
    ],
)
def test_other_commands_are_not(argv: tuple[str, ...], tree: Path) -> None:
    check_paths(argv, tree, Path("/app"))


def test_the_release_is_mounted_last(tree: Path, tmp_path: Path) -> None:
    mounts = [(mount.source, mount.at) for mount in view_of(tree, Path("/app"))]
    assert mounts == [
        (f"{tmp_path}/base.mount", f"{tmp_path}/base"),
        ("/app", f"{tmp_path}/base/tree"),
        (str(tree), "/app"),
    ]
