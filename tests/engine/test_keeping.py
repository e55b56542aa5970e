"""Whether the state outlives the container: on recorded mount tables, and in containers of a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.engine.dockerd.mounts import parse_mounts
from supervisor.engine.keeping import in_container, state_keeping
from tests.engine_rig.engine import Share

STATE = Path("/var/lib/supervisor")
ANONYMOUS = "5f0c2a" + "9" * 58
HOST = """\
23 27 0:22 / /sys rw,relatime - sysfs sysfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
28 27 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
"""
# Docker 20.10 on overlay2, cut to what matters.
CONTAINER = """\
563 546 0:48 / / rw,relatime master:210 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/d/C/diff,workdir=/d/C/work
564 563 0:51 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
565 563 0:52 / /dev rw,nosuid - tmpfs tmpfs rw,size=65536k,mode=755
569 563 254:0 /var/lib/docker/containers/77aa/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
570 563 254:0 /var/lib/docker/containers/77aa/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw
571 563 254:0 /var/lib/docker/containers/77aa/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw
"""


def told(table: str, path: Path = STATE) -> str:
    return state_keeping(path, parse_mounts(table))


def volume(name: str, point: Path | str = STATE, root: str = "/var/lib/docker/volumes") -> str:
    return f"572 563 254:0 {root}/{name}/_data {point} rw,relatime master:1 - ext4 /dev/vda rw\n"


def test_outside_a_container_the_state_is_kept() -> None:
    assert told(HOST) == ""
    assert not in_container(parse_mounts(HOST))


def test_the_layer_is_told_with_the_volume_to_add() -> None:
    text = told(CONTAINER)
    assert text.startswith("the state folder '/var/lib/supervisor' lies in the container's own layer, which goes when")
    assert text.endswith("start the container with `-v dokploy-supervisor:/var/lib/supervisor`")


@pytest.mark.parametrize("layer", ["btrfs", "zfs", "fuse.fuse-overlayfs", "ext4"])
def test_a_layer_of_another_storage_driver_is_one_too(layer: str) -> None:
    assert "own layer" in told(CONTAINER.replace("- overlay overlay", f"- {layer} /dev/x"))


@pytest.mark.parametrize("root", ["/var/lib/docker/volumes", "/docker/volumes", "/volumes", ""])
def test_an_anonymous_volume_is_told_by_its_name(root: str) -> None:
    text = told(CONTAINER + volume(ANONYMOUS, root=root))
    assert "on an anonymous volume (5f0c2a999999), which a container that is made anew does not get again" in text
    assert "-v dokploy-supervisor:/var/lib/supervisor" in text


@pytest.mark.parametrize(
    "line",
    [
        volume("dokploy-supervisor"),
        volume("dokploy-supervisor", "/var/lib"),
        volume("f" * 63),
        f"572 563 254:0 /srv/{ANONYMOUS} {STATE} rw - ext4 /dev/vda rw\n",
        f"572 563 0:60 / {STATE} rw - nfs4 server:/export rw\n",
    ],
    ids=["named", "named, above", "named with hex digits", "bind mount", "network disk"],
)
def test_a_named_volume_or_a_bind_mount_keeps_it(line: str) -> None:
    assert told(CONTAINER + line) == ""


def test_a_volume_beside_it_does_not_help() -> None:
    assert "own layer" in told(CONTAINER + volume("data", "/var/lib/supervisor-data"))


def test_the_nearest_mount_counts() -> None:
    assert "anonymous" in told(CONTAINER + volume("named", "/var/lib") + volume(ANONYMOUS))


def test_memory_is_told() -> None:
    assert "in memory, which goes when the container stops" in told(
        f"{CONTAINER}573 563 0:70 / {STATE} rw - tmpfs t rw\n"
    )


def test_another_folder_is_named_in_the_flag() -> None:
    text = state_keeping(Path("/data/state"), parse_mounts(CONTAINER), volume="shop-supervisor")
    assert "`-v shop-supervisor:/data/state`" in text


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    table = CONTAINER + volume("named", tmp_path / "there")
    assert told(table, tmp_path / "link" / "state") == ""
    assert "own layer" in told(table, tmp_path / "elsewhere")


@pytest.mark.engine
@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ((), "on an anonymous volume"),  # the image's own VOLUME
        (("--env", "SUPERVISOR_STATE_DIR=/state"), "in the container's own layer"),
        (("--tmpfs", "/var/lib/supervisor"), "in memory"),
        (("--volume", "{volume}:/var/lib/supervisor"), ""),
        (("--volume", "{folder}:/var/lib/supervisor"), ""),
    ],
    ids=["anonymous", "layer", "memory", "named", "bind"],
)
def test_in_a_real_container(docker: Share, tmp_path: Path, mount: tuple[str, ...], words: str) -> None:
    options = [word.format(volume=docker.name("data"), folder=tmp_path) for word in mount]
    code = (
        "import os, pathlib; from supervisor.engine.keeping import state_keeping; "
        "print(state_keeping(pathlib.Path(os.environ.get('SUPERVISOR_STATE_DIR', '/var/lib/supervisor'))))"
    )
    said = docker.engine.output(
        *("run", "--rm", "--name", docker.name("box"), "--label", docker.label, *options),
        *(docker.engine.image("supervisor"), "/opt/supervisor/bin/python", "-c", code),
    )
    assert words in said
    assert bool(said) is bool(words)
