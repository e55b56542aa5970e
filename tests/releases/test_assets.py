"""Files that pages of older releases still ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.releases.assets import carry
from tests.releases.rig import write_tree

FOLDERS = (".next/static",)


def made(root: Path, *names: str) -> Path:
    write_tree(root, {f".next/static/{name}": f"{root.name}/{name}" for name in names} | {"server.js": root.name})
    return root


def assets(tree: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (tree / ".next/static").rglob("*") if path.is_file()}


def test_a_release_carries_the_files_of_those_before_it(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", "a.js", "chunks/b.js"), made(tmp_path / "new", "c.js")
    assert carry(new, FOLDERS, [old]) == 2
    assert assets(new) == {"a.js": "old/a.js", "b.js": "old/chunks/b.js", "c.js": "new/c.js"}
    assert os.stat(new / ".next/static/a.js").st_ino == os.stat(old / ".next/static/a.js").st_ino
    assert (new / "server.js").read_text() == "new"


def test_its_own_file_comes_before_an_older_one_and_a_newer_tree_s_before_an_older_one_s(tmp_path: Path) -> None:
    first, second, new = (made(tmp_path / name, "a.js", *more) for name, more in (("1", "b"), ("2", "b"), ("3", "")))
    carry(new, FOLDERS, [second, first])
    assert assets(new) == {"a.js": "3/a.js", "b": "2/b"}


def test_what_was_carried_is_not_carried_on(tmp_path: Path) -> None:
    first, second, third = (made(tmp_path / name, f"{name}.js") for name in ("1", "2", "3"))
    carry(first, FOLDERS, [])
    carry(second, FOLDERS, [first])
    carry(third, FOLDERS, [second])
    assert set(assets(third)) == {"2.js", "3.js"}


@pytest.mark.parametrize("missing", ["folder", "file", "tree"])
def test_what_is_not_there_is_left_out(tmp_path: Path, missing: str) -> None:
    old, new = made(tmp_path / "old", "a.js"), made(tmp_path / "new", "c.js")
    carry(old, FOLDERS, [])
    if missing == "folder":
        (old / ".next/static/a.js").unlink()
        (old / ".next/static").rmdir()
    elif missing == "file":
        (old / ".next/static/a.js").unlink()
    else:
        old = tmp_path / "none"
    assert carry(new, FOLDERS, [old]) == 0
    assert assets(new) == {"c.js": "new/c.js"}


def test_a_link_is_not_carried(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", "a.js"), made(tmp_path / "new", "c.js")
    (old / ".next/static/passwd").symlink_to("/etc/passwd")
    carry(new, FOLDERS, [old])
    assert set(assets(new)) == {"a.js", "c.js"}


def test_without_folders_nothing_is_written(tmp_path: Path) -> None:
    new = made(tmp_path / "new", "c.js")
    assert carry(new, (), [made(tmp_path / "old", "a.js")]) == 0
    assert not (new / ".release").exists()
