"""`supervisor release build`: its options, what it prints, and its exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pydantic import BaseModel

from supervisor.commands.release_build import given_options, main, parser
from supervisor.core.errors import ExitCode
from supervisor.releases.build.options import ReleaseOptions
from supervisor.releases.build.output import MANIFEST
from supervisor.releases.manifest import parse_manifest
from tests.releases.build.rig import FILES, make_tree, run

REPOSITORY = Path(__file__).resolve().parents[3]
EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An app in no repository, built at a fixed time."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    return make_tree(tmp_path / "app", {**FILES, ".env": "A=1"})


def test_it_prints_what_was_built_and_the_next_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder)]) == ExitCode.OK
    said, errors = capsys.readouterr()
    assert errors == ""
    rows = {line[:10].strip(): line[10:] for line in said.splitlines()}
    manifest = parse_manifest((folder / "dist-tarball" / MANIFEST).read_bytes())
    archive = folder / "dist-tarball" / "shop-1.2.3.tar.zst"
    assert rows["release"] == "shop 1.2.3 (sequence 1700000000, SOURCE_DATE_EPOCH)"
    assert rows["archive"].startswith(f"{archive}: {manifest.archive.size} bytes, ")
    assert rows["archive"].endswith(f" % of {manifest.tree.bytes} bytes in 6 files")
    assert rows["tree"] == manifest.tree.digest
    assert rows["manifest"] == "not signed (--key FILE signs it)"
    assert rows["left out"] == "1, of them as likely secrets: '.env' (`!NAME` in .releaseignore takes one in)"
    assert rows["next"] == f"{folder / 'dist-tarball' / 'deploy-tarball.sh'} CONTAINER {archive}"


def test_it_prints_json(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert main([str(folder), "--json", "--output", str(output), "--compression", "gzip", "--sequence", "9"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["app"], values["version"], values["sequence"]) == ("shop", "1.2.3", 9)
    assert values["written"] == [str(output / name) for name in ("shop-1.2.3.tar.gz", MANIFEST, "deploy-tarball.sh")]
    assert (values["file_count"], values["left_out"], values["secrets_left_out"]) == (6, 1, [".env"])
    assert values["archive"]["compression"] == "gzip"
    assert values["key_id"] is None


def test_the_same_commit_gives_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    monkeypatch.setenv("GIT_COMMITTER_DATE", "1600000000 +0000")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    who = ("-c", "user.name=Nobody", "-c", "user.email=nobody@example.com")
    run("git", "init", "--quiet", "--initial-branch=main", folder)
    (folder / ".gitignore").write_text(".env\ndist-tarball/\n")
    run("git", "-C", folder, "add", ".")
    run("git", *who, "-C", folder, "commit", "--quiet", "--message=one")
    copy = tmp_path / "copy"
    run("git", "clone", "--quiet", folder, copy)
    assert main([str(folder)]) == main([str(copy)]) == 0
    one, two = ((place / "dist-tarball" / MANIFEST).read_bytes() for place in (folder, copy))
    assert one == two
    manifest = parse_manifest(one)
    assert manifest.sequence == 1_600_000_000
    assert (manifest.git.branch, manifest.git.dirty) == ("main", False)
    assert manifest.version == f"1.2.3+{manifest.git.commit[:7]}"
    assert "the commit's time" in capsys.readouterr().out


def test_every_field_of_the_table_has_an_option() -> None:
    words = [
        *("DIR", "--app", "a", "--expires", "2030-01-01T00:00:00Z", "--platform-os", "linux", "--platform-arch", "any"),
        *("--platform-libc", "any", "--platform-runtime", "node=>=20,<23", "--platform-runtime", "bun=>=1"),
        *("--replace", "a", "--replace", "b", "--merge", "c", "--no-link", "--shared", "d", "--keep-assets", "e"),
        *("--command", "run", "--environment", "X", "--health-path", "/", "--health-timeout-seconds", "1"),
        *("--health-start-seconds", "2", "--front-overlap", "--front-drain-seconds", "3", "--schema-level", "4"),
        *("--schema-min-supported", "4", "--migrations-folder", "m", "--migrations-snapshot"),
        *("--min-supervisor", "1"),
    ]
    given = given_options(parser().parse_args(words))
    assert {key.partition(".")[0] for key in given} == {
        field.alias or name for name, field in ReleaseOptions.model_fields.items()
    }
    parts = {name: field for name, field in ReleaseOptions.model_fields.items() if isinstance(field.default, BaseModel)}
    for name, field in parts.items():
        key = field.alias or name
        assert {f"{key}.{part}" for part in type(field.default).model_fields} <= set(given)
    assert given["platform.runtime"] == {"node": ">=20,<23", "bun": ">=1"}
    assert (given["link"], given["replace"], given["schema.level"]) == (False, ["a", "b"], 4)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        ([], ExitCode.USAGE, "the following arguments are required: DIR"),
        (["DIR", "--sequence", "x"], ExitCode.USAGE, "invalid int value: 'x'"),
        (["DIR", "--compression", "lzma"], ExitCode.USAGE, "invalid choice: 'lzma'"),
        (["DIR", "--platform-runtime", "node"], ExitCode.USAGE, "it reads NAME=RANGE"),
        (["DIR", "--replace", "../x"], ExitCode.CONFIGURATION, "--replace is '../x'"),
        (["DIR", "--replace", "x"], ExitCode.REJECTED, "'x' is to be replaced and is not there"),
        (["DIR/gone"], ExitCode.REJECTED, "there is no such folder"),
        (["DIR", "--key", "/gone/sign.key"], ExitCode.REJECTED, "cannot read '/gone/sign.key'"),
    ],
)
def test_what_goes_wrong_has_a_code_and_a_reason(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: ExitCode, why: str
) -> None:
    assert main([word.replace("DIR", str(folder)) for word in words]) == code
    said, errors = capsys.readouterr()
    assert said == ""
    assert why in errors


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    assert "usage: supervisor release build" in capsys.readouterr().out


def test_the_script_of_the_checkout_tells_its_usage() -> None:
    script = REPOSITORY / "scripts" / "build-release"
    assert run(script, "--help").stdout.startswith("usage: scripts/build-release DIR [OPTIONS")
    assert run(script, check=False).returncode == ExitCode.USAGE
