"""The storage matrix on plain facts, the mount probe for real, the data root's lock between two holders."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import storage
from supervisor.engine.dockerd.lock import RootLock
from supervisor.engine.dockerd.mounts import mount_of, parse_mounts, read_mounts
from supervisor.engine.dockerd.storage import StorageFacts, decide, find_prior, read_facts
from tests.engine.dockerd_rig import folder_on_disk

GIB = 1024**3
GOOD = StorageFacts(
    root="/var/lib/docker",
    kind="ext4",
    read_only=False,
    free_bytes=50 * GIB,
    free_files=1_000_000,
    prior=(),
    overlay_error="",
)
LAYER = replace(GOOD, kind="overlay", overlay_error="Invalid argument")


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs"])
def test_a_disk_on_which_overlays_work_takes_overlay2(kind: str) -> None:
    assert decide(replace(GOOD, kind=kind), allow_layer=False).driver == "overlay2"


@pytest.mark.parametrize("kind", ["btrfs", "zfs"])
def test_a_disk_with_a_driver_of_its_own_takes_that_where_overlays_fail(kind: str) -> None:
    assert decide(replace(GOOD, kind=kind, overlay_error="Invalid argument"), allow_layer=False).driver == kind


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (replace(GOOD, kind="tmpfs"), "on tmpfs: it does not outlive the container"),
        (replace(GOOD, kind="nfs4"), "on nfs4: overlays do not work"),
        (replace(GOOD, kind="cifs", prior=("overlay2",)), "on cifs"),
        (replace(GOOD, read_only=True), "read-only"),
        (replace(GOOD, overlay_error="Operation not permitted"), "no overlay can be mounted.*Operation not permitted"),
        (replace(GOOD, free_bytes=10 * 1024 * 1024), "only 10 MiB are free.*free some"),
        (replace(GOOD, free_files=3), "only 3 more files"),
        (replace(GOOD, prior=("overlay2", "vfs")), r"several storage drivers \(overlay2, vfs\)"),
        (LAYER, "own layer.*-v dokploy-docker:/var/lib/docker"),
    ],
)
def test_an_unsuitable_root_is_e23_with_the_way_out(facts: StorageFacts, said: str) -> None:
    with pytest.raises(EngineError, match=said) as caught:
        decide(facts, allow_layer=False)
    assert caught.value.code == "E23"


@pytest.mark.parametrize("facts", [replace(GOOD, kind="tmpfs"), replace(GOOD, prior=("overlay2", "vfs"))])
def test_the_opt_in_for_the_layer_allows_nothing_else(facts: StorageFacts) -> None:
    with pytest.raises(EngineError):
        decide(facts, allow_layer=True)


@pytest.mark.parametrize(("fuse", "driver"), [(True, "fuse-overlayfs"), (False, "vfs")])
def test_the_layer_is_taken_with_the_opt_in_and_a_loud_warning(fuse: bool, driver: str) -> None:
    choice = decide(replace(LAYER, has_fuse_overlay=fuse), allow_layer=True)
    assert choice.driver == driver
    assert any("DATA WILL BE LOST" in warning for warning in choice.warnings)


def test_state_that_is_there_wins_over_what_a_fresh_root_would_get() -> None:
    assert decide(replace(GOOD, prior=("vfs",)), allow_layer=False).driver == "vfs"
    assert decide(replace(GOOD, kind="btrfs", prior=("btrfs",)), allow_layer=False).driver == "btrfs"


def test_little_space_is_a_warning_and_uncounted_files_are_none() -> None:
    choice = decide(replace(GOOD, free_bytes=GIB, free_files=None), allow_layer=False)
    assert choice.driver == "overlay2"
    assert "only 1024 MiB left" in choice.warnings[0]


def test_prior_drivers_are_those_with_content(tmp_path: Path) -> None:
    for name in ("overlay2/l", "vfs/dir", "btrfs", "image/zfs"):
        (tmp_path / name).mkdir(parents=True)
    assert find_prior(tmp_path) == ("vfs",)
    (tmp_path / "overlay2" / "abc").mkdir()
    assert find_prior(tmp_path) == ("overlay2", "vfs")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_probe_mounts_an_overlay_on_a_disk_and_leaves_nothing() -> None:
    with folder_on_disk() as folder:
        facts = read_facts(folder, read_mounts(), search_path="")
        assert (facts.overlay_error, facts.free_bytes > 0) == ("", True)
        assert not list(folder.glob(".overlay-probe-*"))
        assert not [mount for mount in read_mounts() if str(folder) in mount.point]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_probe_says_why_an_overlay_cannot_be_mounted() -> None:
    assert storage.try_overlay(Path("/proc")) != ""


def test_a_later_mount_on_the_same_point_hides_the_earlier() -> None:
    table = parse_mounts(
        "1 0 0:1 / / rw - overlay overlay rw\n"
        "2 1 8:1 / /var/lib/docker rw - ext4 /dev/sda rw\n"
        "3 1 0:9 / /var/lib/docker ro - tmpfs tmpfs rw\n"
        "4 1 8:1 /a\\040b /var/lib/docker-two rw - xfs /dev/sdb rw\n"
    )
    found = [mount_of(path, table) for path in ("/var/lib/docker/x", "/var/lib/docker-two", "/srv")]
    assert [mount.kind if mount else None for mount in found] == ["tmpfs", "xfs", "overlay"]
    assert found[0] is not None
    assert found[0].read_only
    assert found[1] is not None
    assert found[1].root == "/a b"


def test_a_locked_data_root_is_e24_naming_the_holder(tmp_path: Path) -> None:
    first, second = RootLock(tmp_path / ".lock"), RootLock(tmp_path / ".lock")
    first.take()
    first.take()
    with pytest.raises(EngineError, match=rf"another supervisor.*{os.uname().nodename}, pid {os.getpid()} ") as caught:
        second.take()
    assert caught.value.code == "E24"
    first.drop()
    second.take()
    assert second.held
    second.drop()
