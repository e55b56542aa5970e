"""A whole build: the same bytes for the same input, all of the output or none, and what the manifest says."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from supervisor.core.errors import ExitCode
from supervisor.releases.build.deploy_script import deploy_script
from supervisor.releases.build.identity import Moment
from supervisor.releases.build.ignore import OUTPUT
from supervisor.releases.build.output import MANIFEST, SCRIPT, SIGNATURE
from supervisor.releases.manifest import Git, manifest_id, parse_manifest
from supervisor.releases.model import Compression, ReleaseError, is_release_id
from supervisor.releases.tree import file_digest, tree_digest, walk_tree
from tests.releases.build.rig import FILES, LIMIT_SECONDS, MOMENT, build_in, left_in, make_tree, run

KILLS = 12
KILLS_WITH_SOAK = 200

# Builds the same release over and over.
BUILDER = """
import sys
from pathlib import Path
from typing import Any
from tests.releases.build.rig import build_in
print("up", flush=True)
while True:
    built = build_in(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_same_input_gives_the_same_files(tmp_path: Path) -> None:
    """In a folder of another name, made in another order, at another time, with other modes (U17)."""
    first = make_tree(tmp_path / "one")
    umask = os.umask(0o007)
    try:
        second = make_tree(tmp_path / "another name", dict(reversed(FILES.items())))
    finally:
        os.umask(umask)
    for path in second.rglob("*"):
        os.utime(path, (1000, 2000))
    given = {"replace": ["dist"], "health.path": "/up"}
    git = Git(commit="1" * 40, branch="main")
    one = build_in(first, tmp_path / "out" / "one", given=given, git=git)
    two = build_in(second, tmp_path / "out" / "two", given=given, git=git)
    assert contents(one.output) == contents(two.output)
    assert one.release == two.release


def test_the_manifest_says_what_is_there(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    given = {"replace": ["dist"], "merge": ["node_modules"], "schema.level": 3, "platform.runtime": {"node": ">=20"}}
    git = Git(commit="a" * 40, branch="main", dirty=True)
    built = build_in(folder, given=given, git=git, sequence=77, compression=Compression.GZIP)
    data = (built.output / MANIFEST).read_bytes()
    manifest = parse_manifest(data)
    assert manifest == built.manifest
    assert (manifest.app, manifest.version, manifest.sequence, manifest.created) == ("shop", "1.2.3", 77, MOMENT.at)
    assert manifest.archive.file == "shop-1.2.3.tar.gz"
    assert manifest.archive.sha256 == file_digest(built.archive)
    assert manifest.archive.size == built.archive.stat().st_size
    assert manifest.git == git
    assert (manifest.replace, manifest.merge) == (("dist",), ("node_modules",))
    assert (manifest.schema_.level, manifest.platform.runtime) == (3, {"node": ">=20"})
    assert built.release == manifest_id(manifest, data)
    assert is_release_id(built.release)
    run("tar", "-xf", built.archive, "-C", tmp_path)  # over the folder it was made from
    listed = [entry for entry in walk_tree(folder) if not entry.path.startswith(OUTPUT)]
    assert manifest.tree.digest == tree_digest(listed)
    assert (manifest.tree.entries, manifest.tree.bytes) == (len(listed), sum(entry.size for entry in listed))
    assert built.file_count == len(FILES)


def test_the_output_is_made_ready_to_be_sent(tmp_path: Path) -> None:
    built = build_in(make_tree(tmp_path / "app"))
    assert left_in(built.output) == {".gitignore", "shop-1.2.3.tar.zst", MANIFEST, SCRIPT}
    assert (built.output / ".gitignore").read_text() == "*\n"
    assert (built.output / SCRIPT).read_text() == deploy_script()
    modes = {path.name: path.stat().st_mode & 0o777 for path in built.files}
    assert modes == {"shop-1.2.3.tar.zst": 0o644, MANIFEST: 0o644, SCRIPT: 0o755}


def test_a_build_takes_nothing_of_the_one_before(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    first = build_in(folder, version="1").manifest
    second = build_in(folder, version="2").manifest
    assert first.tree == second.tree
    assert left_in(folder / OUTPUT) >= {"shop-1.tar.zst", "shop-2.tar.zst"}


def test_an_output_with_other_things_in_it_gets_no_gitignore(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    output = make_tree(tmp_path / "site", {"page.html": "", ".notes.tmp": ""})
    build_in(folder, output)
    assert left_in(output) == {"page.html", ".notes.tmp", "shop-1.2.3.tar.zst", MANIFEST, SCRIPT}


def test_the_app_itself_is_no_output(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    with pytest.raises(ReleaseError, match="into itself; name another folder with --output"):
        build_in(folder, tmp_path / "app" / ".." / "app")


def test_an_unsigned_build_removes_the_signature_of_the_one_before(tmp_path: Path) -> None:
    built = build_in(make_tree(tmp_path / "app"))
    (built.output / SIGNATURE).write_text("of another manifest")
    build_in(tmp_path / "app")
    assert not (built.output / SIGNATURE).exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"version": "one two"}, "version is 'one two'"),
        ({"version": "x" * 90}, "version is 'xxx"),
        ({"app": "Ünï"}, "app is 'Ünï'"),
        ({"sequence": 0}, "sequence is 0"),
        ({"given": {"expires": MOMENT.at}}, "it expires at 2026-05-01 12:30:00+00:00, not after its time"),
        ({"given": {"replace": ["gone"]}}, "'gone' is to be replaced and is not there; build the app first"),
        ({"key": Path("gone.key")}, "cannot read 'gone.key'"),
    ],
)
def test_what_cannot_be_built_leaves_nothing(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    folder = make_tree(tmp_path / "app")
    with pytest.raises(ReleaseError) as caught:
        build_in(folder, **changes)
    assert why in str(caught.value)
    assert not (folder / OUTPUT).exists()


def test_a_failed_build_leaves_the_one_before_as_it_was(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    build_in(folder)
    before = contents(folder / OUTPUT)
    key = tmp_path / "no.key"
    key.write_text("no key")
    (folder / "server.js").write_text("changed")
    with pytest.raises(ReleaseError, match="cannot sign"):
        build_in(folder, key=key)
    assert contents(folder / OUTPUT) == before


def test_a_merged_folder_need_not_be_there(tmp_path: Path) -> None:
    assert build_in(make_tree(tmp_path / "app"), given={"merge": ["gone"]}).manifest.merge == ("gone",)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app", {**FILES, "big": os.urandom(3 * 1024 * 1024)})
    program = (
        "import resource, signal, sys; from pathlib import Path; from tests.releases.build.rig import build_in\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "try: build_in(Path(sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    said = run(sys.executable, "-c", program, folder).stdout
    assert said.startswith(f"ReleaseError cannot write to '{folder / OUTPUT}': File too large; make it a folder")
    assert left_in(folder / OUTPUT) == {".gitignore"}


def test_two_builds_into_one_folder_are_refused(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    build_in(folder)
    descriptor = os.open(folder / OUTPUT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(ReleaseError, match="another build is writing there; wait for its end"):
            build_in(folder)
    finally:
        os.close(descriptor)
    build_in(folder)


def test_an_output_that_is_a_file_is_told(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app", {**FILES, OUTPUT: "a file"})
    with pytest.raises(ReleaseError, match=r"cannot write to .*: File exists; make it a folder"):
        build_in(folder)


def test_what_unpacks_to_a_thousand_times_its_size_is_told(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    with (folder / "sparse").open("wb") as file:
        file.truncate(20 * 1024 * 1024)
    warnings = build_in(folder).warnings
    assert len(warnings) == 1
    assert "times its size, and may be refused for that (the limit is 200)" in warnings[0]


def test_a_build_killed_at_any_moment_leaves_whole_files(tmp_path: Path, soak: bool) -> None:
    folder = make_tree(tmp_path / "app", {**FILES, "big": random.Random(1).randbytes(2 * 1024 * 1024)})
    whole = contents(build_in(folder, tmp_path / "whole").output)
    output = tmp_path / "out"
    chance = random.Random(5)
    left: set[str] = set()
    for _ in range(KILLS_WITH_SOAK if soak else KILLS):
        words = [sys.executable, "-c", BUILDER, str(folder), str(output)]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            # Looking at what is there meanwhile spreads the kills over the whole of a build.
            until = time.monotonic() + chance.random() * 0.3
            while time.monotonic() < until:
                assert output.parent.is_dir()
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT_SECONDS)
        found = contents(output) if output.exists() else {}
        left |= {name for name in found if name not in whole}
        assert {name: data for name, data in found.items() if name in whole and data != whole[name]} == {}
    assert left, "no kill met a build at work, so they showed nothing"
    assert all(name.endswith(".tmp") for name in left)
    assert contents(build_in(folder, output).output) == whole


def test_a_release_is_named_by_its_manifest(tmp_path: Path) -> None:
    """Another time is another release of the same tree."""
    folder = make_tree(tmp_path / "app")
    later = replace(MOMENT, at=datetime(2026, 5, 2, tzinfo=UTC))
    one, two = build_in(folder), build_in(folder, moment=later)
    assert one.manifest.tree == two.manifest.tree
    assert one.release != two.release


def test_the_time_of_entries_is_that_of_the_order(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app")
    build = build_in(folder, moment=Moment(MOMENT.at, "SOURCE_DATE_EPOCH", 86400))
    lines = run("tar", "--utc", "-tvf", build.archive).stdout.splitlines()
    assert lines
    assert all("1970-01-02" in line for line in lines)


def test_a_mistake_in_the_table_is_no_refusal_of_the_folder(tmp_path: Path) -> None:
    folder = make_tree(tmp_path / "app", {**FILES, "release.toml": "[release]\nlink = 1\n"})
    with pytest.raises(ReleaseError) as caught:
        build_in(folder)
    assert caught.value.exit_code == ExitCode.CONFIGURATION


def test_the_manifest_is_json_for_everybody(tmp_path: Path) -> None:
    built = build_in(make_tree(tmp_path / "app"))
    values = json.loads((built.output / MANIFEST).read_text(encoding="ascii"))
    assert values["created"] == "2026-05-01T12:30:00Z"
    assert values["format"] == 1
