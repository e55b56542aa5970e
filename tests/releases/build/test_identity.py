"""App, version, sequence and time of a build."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.releases.build.git import GitFacts
from supervisor.releases.build.identity import (
    Moment,
    Source,
    choose_app,
    choose_moment,
    choose_version,
    read_source,
)
from supervisor.releases.model import ReleaseError, release_id
from tests.releases.build.rig import make_tree

NOW = datetime(2026, 5, 1, 12, 30, 15, 999, tzinfo=UTC)
MOMENT = Moment(NOW, "now")
CLEAN = GitFacts("abcdef0" + "1" * 33, "main", False, 1_700_000_000, "v2.1-3-gabcdef0")
DIRTY = GitFacts("abcdef0" + "1" * 33, "main", True, 1_700_000_000, "v2.1-3-gabcdef0")
NONE = GitFacts()


@pytest.mark.parametrize(
    ("given", "source", "git", "version"),
    [
        ("5.0", "1.2", DIRTY, "5.0"),
        (None, "1.2", CLEAN, "1.2+abcdef0"),
        (None, "1.2", DIRTY, "1.2+abcdef0.dirty"),
        (None, "1.2", NONE, "1.2"),
        (None, "1.2+b7", CLEAN, "1.2+b7.abcdef0"),
        (None, "1!2.0 rc", NONE, "1-2.0-rc"),
        (None, "", CLEAN, "v2.1-3-gabcdef0"),
        (None, "", DIRTY, "v2.1-3-gabcdef0+dirty"),
        (None, "", GitFacts("abcdef0", described="feat/x-1"), "feat-x-1"),
        (None, "", NONE, "20260501-123015"),
        (None, "9" * 100, DIRTY, "9" * 66 + "+abcdef0.dirty"),
    ],
)
def test_the_version_is_the_sources_with_the_commit(
    given: str | None, source: str, git: GitFacts, version: str
) -> None:
    assert choose_version(given, Source("", source), git, MOMENT) == version
    assert release_id(version, "0" * 64)


@pytest.mark.parametrize(
    ("given", "name", "folder", "app"),
    [
        ("shop", "x", "y", "shop"),
        (None, "x", "y", "x"),
        (None, "", "My App", "My-App"),
        (None, "", ".hidden", "hidden"),
        (None, "", "ü", "-"),
    ],
)
def test_the_app_is_named_by_its_source(given: str | None, name: str, folder: str, app: str) -> None:
    expected = app if app != "-" else "app"
    assert choose_app(given, Source(name), Path("/there") / folder) == expected


@pytest.mark.parametrize(
    ("epoch", "git", "seconds", "why", "mtime"),
    [
        ("86400", CLEAN, 86400, "SOURCE_DATE_EPOCH", 86400),
        (None, CLEAN, 1_700_000_000, "the commit's time", 0),
        ("", CLEAN, 1_700_000_000, "the commit's time", 0),
        (None, DIRTY, int(NOW.timestamp()), "the time of the build", 0),
        (None, NONE, int(NOW.timestamp()), "the time of the build", 0),
    ],
)
def test_the_time_is_the_commits_where_nothing_was_changed(
    epoch: str | None, git: GitFacts, seconds: int, why: str, mtime: int
) -> None:
    moment = choose_moment(epoch, git, NOW)
    assert (moment.at.timestamp(), moment.why, moment.mtime) == (seconds, why, mtime)
    assert moment.sequence == seconds


def test_a_sequence_is_never_zero() -> None:
    assert choose_moment("0", NONE, NOW).sequence == 1


@pytest.mark.parametrize("epoch", ["yesterday", "-1", "1.5", "9999999999", "12345678901"])
def test_an_epoch_that_is_no_time_is_refused(epoch: str) -> None:
    with pytest.raises(ReleaseError, match="cannot use SOURCE_DATE_EPOCH="):
        choose_moment(epoch, NONE, NOW)


@pytest.mark.parametrize(
    ("files", "source"),
    [
        ({"package.json": '{"name": "@org/shop", "version": "1.2"}'}, Source("shop", "1.2")),
        ({"package.json": '{"name": 3}', "pyproject.toml": '[project]\nname="x"'}, Source()),
        ({"package.json": "[]"}, Source()),
        ({"pyproject.toml": '[project]\nname = "shop"\nversion = "2"'}, Source("shop", "2")),
        ({"pyproject.toml": '[project]\nname = "shop"\ndynamic = ["version"]'}, Source("shop", "")),
        ({"pyproject.toml": "project = 1"}, Source()),
        ({"other": ""}, Source()),
    ],
)
def test_the_source_says_name_and_version(tmp_path: Path, files: dict[str, str], source: Source) -> None:
    assert read_source(make_tree(tmp_path, files)) == source


@pytest.mark.parametrize("files", [{"package.json": "{"}, {"pyproject.toml": "["}, {"package.json": b"\xff"}])
def test_a_broken_source_is_told(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    with pytest.raises(ReleaseError, match="mend it, or give --app and --version"):
        read_source(make_tree(tmp_path, files))
