"""As whom servers run, and what keeps that user out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.process.child import Identity
from supervisor.services.embedded.access import (
    blocked_path,
    give_tree,
    grants,
    has_other_owner,
    identity_for,
    named_identity,
)

STRANGER = Identity(26100, 26100)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder everybody may enter; pytest's own is its user's alone."""
    path = Path(tempfile.mkdtemp(prefix="supervisor-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_only_root_becomes_somebody_else() -> None:
    assert identity_for("root", 26026, our_uid=1000) is None
    assert identity_for("root", 26026, our_uid=0) == Identity(0, 0)
    assert identity_for("no-such-account", 26026, our_uid=0) == Identity(26026, 26026)


def test_uid_without_a_name_borrows_nobody_s() -> None:
    assert named_identity(None) is None
    assert named_identity(Identity(0, 0)) == Identity(0, 0)
    assert named_identity(STRANGER) == Identity(65534, 65534)


def test_open_path_is_not_blocked_and_a_missing_one_is_judged_by_what_is_there(folder: Path) -> None:
    assert blocked_path(folder, STRANGER) == ""
    assert blocked_path(folder / "not" / "there", STRANGER) == ""


def test_closed_folder_above_is_named_with_its_mode(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "below").mkdir(parents=True)
    closed.chmod(0o700)
    reason = blocked_path(closed / "below", STRANGER)
    assert f"uid {STRANGER.uid} may not enter {str(closed)!r} (mode 0700" in reason
    assert str(closed / "below") in reason
    closed.chmod(0o711)
    assert blocked_path(closed / "below", STRANGER) == ""


def test_link_into_a_closed_folder_is_seen_through(folder: Path) -> None:
    closed = folder / "closed"
    (closed / "below").mkdir(parents=True)
    (folder / "link").symlink_to(closed / "below")
    closed.chmod(0o700)
    assert str(closed) in blocked_path(folder / "link", STRANGER)


def test_file_itself_must_grant_what_is_asked(folder: Path) -> None:
    program = folder / "program"
    program.touch()
    program.chmod(0o744)
    assert "may not use" in blocked_path(program, STRANGER, leaf_mode=0o5)
    program.chmod(0o755)
    assert blocked_path(program, STRANGER, leaf_mode=0o5) == ""


def test_root_is_never_blocked(folder: Path) -> None:
    folder.chmod(0)
    assert blocked_path(folder, Identity(0, 0)) == ""
    folder.chmod(0o700)


@pytest.mark.parametrize(
    ("mode", "uid", "groups", "wanted", "allowed"),
    [
        (0o700, 5, set(), 1, True),
        (0o077, 5, set(), 1, False),  # the owner's bits decide, even where the others' would allow
        (0o010, 7, {6}, 1, True),
        (0o707, 7, {6}, 1, False),
        (0o001, 7, {8}, 1, True),
        (0o004, 7, {8}, 5, False),
    ],
)
def test_mode_bits_are_read_as_the_kernel_does(
    mode: int, uid: int, groups: set[int], wanted: int, allowed: bool
) -> None:
    found = os.stat_result((0o40000 | mode, 0, 0, 1, 5, 6, 0, 0, 0, 0))
    assert grants(found, uid, groups, wanted) is allowed


@needs_root
def test_tree_is_given_away_whole_links_not_followed(folder: Path) -> None:
    outside = folder / "outside"
    outside.touch()
    tree = folder / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").touch()
    (tree / "link").symlink_to(outside)
    assert has_other_owner(tree, (STRANGER.uid, STRANGER.gid))
    give_tree(tree, (STRANGER.uid, STRANGER.gid))
    assert {path.lstat().st_uid for path in (tree, *tree.rglob("*"))} == {STRANGER.uid}
    assert outside.stat().st_uid == 0
    assert not has_other_owner(tree, (STRANGER.uid, STRANGER.gid))
    assert not has_other_owner(folder / "missing", (0, 0))
