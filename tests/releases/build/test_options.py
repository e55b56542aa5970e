"""The `[release]` table and the command line: every mistake at once, each where it was made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.errors import ExitCode
from supervisor.releases.build.options import ReleaseOptions, read_options
from supervisor.releases.manifest import Manifest
from supervisor.releases.model import ReleaseError

TABLE = """
[release]
app = "shop"
expires = 2030-01-31T00:00:00Z
replace = ["dist", "public"]
merge = ["node_modules"]
link = false
shared = ["uploads"]
keep_assets = ["dist/assets"]
command = "node server.js"
environment = ["DATABASE_URL"]
health = { path = "/up", timeout_seconds = 2, start_seconds = 30.5 }
front = { overlap = true, drain_seconds = 20 }
schema = { level = 3, min_supported = 2 }
migrations = { folder = "drizzle", snapshot = true }
platform = { arch = "amd64", runtime = { node = ">=20,<23" } }
min_supervisor = "0.6"
"""


def options(folder: Path, table: str = TABLE, **given: Any) -> ReleaseOptions:
    (folder / "release.toml").write_text(table)
    return read_options(folder, {key.replace("__", "."): value for key, value in given.items()})


def mistakes(folder: Path, table: str, **given: Any) -> list[str]:
    with pytest.raises(ReleaseError) as caught:
        options(folder, table, **given)
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines()[1:]]


def test_the_table_is_what_a_manifest_takes(tmp_path: Path) -> None:
    found = options(tmp_path)
    assert found.app == "shop"
    assert found.expires == datetime(2030, 1, 31, tzinfo=UTC)
    archive = {"file": "a", "sha256": "0" * 64, "size": 1, "compression": "zstd"}
    tree = {"digest": "0" * 64, "bytes": 1, "entries": 1}
    others = {"format": 1, "version": "1", "sequence": 1, "created": datetime.now(UTC), "archive": archive}
    manifest = Manifest.model_validate({**found.as_values(), **others, "app": "shop", "tree": tree})
    assert manifest.replace == ("dist", "public")
    assert manifest.health.start_seconds == 30.5
    assert manifest.front.overlap is True
    assert manifest.schema_.min_supported == 2
    assert manifest.migrations.snapshot is True
    assert manifest.platform.runtime == {"node": ">=20,<23"}
    assert manifest.link is False


def test_every_field_of_a_manifest_that_a_person_decides_can_be_given() -> None:
    counted = {"format", "version", "sequence", "created", "git", "archive", "tree"}
    assert set(ReleaseOptions.model_fields) == set(Manifest.model_fields) - counted


def test_the_command_line_comes_before_the_table(tmp_path: Path) -> None:
    found = options(tmp_path, replace=["out"], health__path="/ready", link=True, expires="2031-01-01T00:00:00+01:00")
    assert found.replace == ("out",)
    assert found.health.path == "/ready"
    assert found.health.timeout_seconds == 2
    assert found.link is True
    assert found.expires == datetime(2030, 12, 31, 23, tzinfo=UTC)


def test_without_a_table_all_is_as_the_container_has_it(tmp_path: Path) -> None:
    assert read_options(tmp_path, {}).as_values() == {}


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    table = """
name = "x"
[release]
app = "a b"
replaces = ["dist"]
replace = ["../up"]
link = "yes"
health = { pth = "/", timeout_seconds = 0 }
expires = 2030-01-31
"""
    found = mistakes(tmp_path, table, environment=["1X"], front__drain_seconds=-1.0)
    assert len(found) == 10
    text = "\n".join(found)
    assert "release.toml: unknown key 'name'; what a release says stands below [release]" in text
    assert "release.toml: unknown key 'replaces'; did you mean 'replace'?" in text
    assert "release.toml: unknown key 'health.pth'; did you mean 'path'?" in text
    assert "release.toml: app is 'a b': string should match pattern" in text
    assert "release.toml: replace.0 is '../up': '../up' has an empty part, `.` or `..`" in text
    assert "release.toml: link is 'yes': input should be a valid boolean" in text
    assert "release.toml: health.timeout_seconds is 0: input should be greater than 0" in text
    assert "release.toml: expires is datetime.date(2030, 1, 31): " in text
    assert "--environment is '1X': string should match pattern" in text
    assert "--front-drain-seconds is -1.0: input should be greater than 0" in text


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ("[release]\nreplace = ['a']\nmerge = ['a']\n", "'a' is in both replace and merge"),
        ("[release]\nschema = {level = 1, min_supported = 2}\n", "schema.min_supported is 2, above schema.level 1"),
        ("release = 3\n", "release.toml: release is 3; make it a table, [release]"),
        ("[release]\nhealth = 3\n", "release.toml: health is 3: "),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, table: str, why: str) -> None:
    assert any(why in line for line in mistakes(tmp_path, table)), mistakes(tmp_path, table)


@pytest.mark.parametrize(
    ("content", "why"), [(b"[release\n", "at line 1"), (b"\xff", "utf-8"), (None, "Is a directory; make it a readable")]
)
def test_a_file_that_is_no_toml_is_told(tmp_path: Path, content: bytes | None, why: str) -> None:
    if content is None:
        (tmp_path / "release.toml").mkdir()
    else:
        (tmp_path / "release.toml").write_bytes(content)
    with pytest.raises(ReleaseError, match=why) as caught:
        read_options(tmp_path, {})
    assert str(caught.value).startswith(f"cannot read '{tmp_path / 'release.toml'}': ")
