"""What comes from the image's own tree."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.releases.base import Base, missing
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError
from tests.releases.rig import NOW, write_tree

pytestmark = pytest.mark.anyio
IMAGE = {
    "server.js": "old",
    "config.json": "image",
    "node_modules/a/index.js": "a1",
    "node_modules/b/index.js": "b1",
    "node_modules/.bin/a": "bin",
    "public/old.css": "old",
    "locale/de.po": "de",
    "apps/web/node_modules/c/index.js": "c1",
    "apps/web/main.js": "old",
    "apps/api/main.js": "old",
}


def manifest(**values: Any) -> Manifest:
    part = {"digest": "0" * 64, "bytes": 0, "entries": 0}
    archive = {"file": "a.tar.zst", "sha256": "0" * 64, "size": 0, "compression": "zstd"}
    head = {"format": 1, "app": "app", "version": "1", "sequence": 1, "created": NOW}
    return Manifest.model_validate({**head, "archive": archive, "tree": part, **values})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_tree(tmp_path / "image", IMAGE)
    return tmp_path / "image"


def based(image: Path) -> Base:
    base = Base(image, image.parent / "base" / "tree")
    base.prepare()
    return base


def tree_of(tmp_path: Path, *names: str) -> Path:
    write_tree(tmp_path / "tree", dict.fromkeys(names, "new"))
    return tmp_path / "tree"


@pytest.mark.parametrize(
    ("brings", "values", "missed"),
    [
        (["server.js"], {}, ["apps", "locale", "node_modules", "public"]),
        (["server.js"], {"replace": ["public"]}, ["apps", "locale", "node_modules"]),
        (["node_modules/a/index.js"], {}, ["apps", "locale", "public"]),
        (
            ["node_modules/a/index.js"],
            {"merge": ["node_modules"]},
            ["apps", "locale", "node_modules/.bin", "node_modules/b", "public"],
        ),
        (["node_modules/new.js"], {"merge": ["node_modules/a"]}, ["apps", "locale", "node_modules/a", "public"]),
        (
            ["apps/web/main.js"],
            {"merge": ["apps/web/node_modules"]},
            ["apps/web/node_modules", "locale", "node_modules", "public"],
        ),
        (["server.js"], {"shared": ["locale"]}, ["apps", "node_modules", "public"]),
    ],
)
def test_folders_that_the_archive_lacks_are_missing_and_files_where_they_merge(
    image: Path, tmp_path: Path, brings: list[str], values: dict[str, Any], missed: list[str]
) -> None:
    assert sorted(missing(tree_of(tmp_path, *brings), image, manifest(**values))) == missed


async def test_a_release_is_complete_by_links(image: Path, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "server.js", "node_modules/a/index.js")
    await based(image).fill(tree, manifest(merge=["node_modules"]))
    assert (tree / "node_modules/a/index.js").read_text() == "new"
    assert (tree / "node_modules/b/index.js").read_text() == "b1"
    assert os.readlink(tree / "node_modules/b") == str(tmp_path / "base/tree/node_modules/b")
    assert (tree / "node_modules/b").resolve() == image / "node_modules/b"
    assert not (tree / "config.json").exists(), "a file that the release left out"
    assert based(image).why_unusable(tree) == ""


async def test_a_release_that_copies_does_not_need_the_image_any_more(image: Path, tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "server.js")
    await based(image).fill(tree, manifest(link=False))
    image.rename(tmp_path / "gone")
    assert (tree / "node_modules/b/index.js").read_text() == "b1"
    assert based(image).why_unusable(tree) == ""


@pytest.mark.parametrize("change", ["file", "gone"])
async def test_a_release_with_links_is_not_used_on_another_image(image: Path, tmp_path: Path, change: str) -> None:
    tree = tree_of(tmp_path, "server.js")
    await based(image).fill(tree, manifest())
    if change == "file":
        (image / "node_modules/b/index.js").write_text("b2 is longer")
    else:
        image.rename(tmp_path / "gone")
    assert "of another image" in based(image).why_unusable(tree)


async def test_what_is_written_into_the_image_s_tree_later_does_not_make_it_another_image(
    image: Path, tmp_path: Path
) -> None:
    tree = tree_of(tmp_path, "server.js")
    await based(image).fill(tree, manifest())
    (image / "node_modules/.cache").mkdir()
    for name in (".reload-trigger", "server.js", "public/uploaded.png", "node_modules/.cache/a"):
        (image / name).write_text("written as it runs")
    assert based(image).why_unusable(tree) == ""


async def test_an_image_without_an_app_has_nothing_to_give(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, "server.js")
    await based(tmp_path / "none").fill(tree, manifest())
    assert [path.name for path in tree.iterdir()] == ["server.js"]


async def test_releases_kept_within_the_image_s_tree_are_refused(image: Path) -> None:
    tree = image / "state" / "tree"
    tree.mkdir(parents=True)
    with pytest.raises(ReleaseError, match="SUPERVISOR_STATE_DIR"):
        await based(image).fill(tree, manifest())
