"""What a newer image means for the releases on the volume."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from supervisor.releases.image import Image, ImageFile, OnImageChange, decide, read_image
from supervisor.releases.manifest import manifest_bytes
from tests.releases.rig import write_tree
from tests.releases.test_base import manifest

OLD = Image("a" * 64, 3)
ACTIVE = "5.0-aaaaaaaaaaaa"
LATER = 2**62


@pytest.mark.parametrize("policy", list(OnImageChange))
@pytest.mark.parametrize("before", [None, OLD])
def test_an_image_that_did_not_change_changes_nothing(policy: OnImageChange, before: Image | None) -> None:
    verdict = decide(policy, OLD, before, ACTIVE, 5)
    assert (verdict.use_image, verdict.told) == (False, "")


@pytest.mark.parametrize(
    ("policy", "sequence", "used", "told"),
    [
        ("newest", 6, True, "(sequence 6) is newer than release 5.0"),
        ("newest", 5, False, "is not newer than release 5.0"),
        ("newest", 0, False, "SUPERVISOR_ON_IMAGE_CHANGE=image"),
        ("volume", 9, False, "as SUPERVISOR_ON_IMAGE_CHANGE asks for"),
        ("image", 1, True, "is started instead of release 5.0"),
    ],
)
def test_a_changed_image_is_decided_by_policy_and_sequence(policy: str, sequence: int, used: bool, told: str) -> None:
    verdict = decide(OnImageChange(policy), Image("b" * 64, sequence), OLD, ACTIVE, 5)
    assert verdict.use_image is used
    assert told in verdict.told


def test_an_image_is_known_by_its_files_and_its_release(tmp_path: Path) -> None:
    app = tmp_path / "app"
    write_tree(app, {"server.js": "one"})
    first = read_image(app, LATER)
    assert first.sequence == 0
    write_tree(app, {".release/manifest.json": manifest_bytes(manifest()).decode(), "server.js": "another"})
    second = read_image(app, LATER)
    assert second.sequence == 1
    assert second.fingerprint != first.fingerprint
    assert read_image(tmp_path / "none", LATER) == Image("", 0, LATER)


def test_an_image_is_the_same_after_a_reload_and_a_run_of_its_app(tmp_path: Path) -> None:
    write_tree(tmp_path, {"server.py": "one"})
    first = read_image(tmp_path, LATER)
    write_tree(tmp_path, {".reload-trigger": "", "lib/__pycache__/server.pyc": "compiled"})
    assert read_image(tmp_path, LATER) == first


def test_what_an_app_writes_beside_its_code_does_not_make_another_image(tmp_path: Path) -> None:
    write_tree(tmp_path, {"server.py": "one"})
    until = time.time_ns()
    first = read_image(tmp_path, until)
    write_tree(tmp_path, {"data.sqlite": "rows"})
    os.utime(tmp_path / "data.sqlite", ns=(until + 1, until + 1))
    assert read_image(tmp_path, until) == first
    (tmp_path / "server.py").write_text("two")
    os.utime(tmp_path / "server.py", ns=(until + 1, until + 1))
    assert read_image(tmp_path, until) != first


def test_the_record_is_read_again_and_a_broken_one_is_none(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "image.json")
    assert file.read() is None
    file.write(OLD)
    assert file.read() == OLD
    (tmp_path / "image.json").write_text("{")
    assert file.read() is None


def test_the_record_of_the_same_image_is_not_written_again(tmp_path: Path) -> None:
    file = ImageFile(tmp_path / "image.json")
    file.write(OLD)
    before = (tmp_path / "image.json").stat().st_ino
    file.write(OLD)
    assert (tmp_path / "image.json").stat().st_ino == before
