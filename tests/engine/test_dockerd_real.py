"""A real dockerd, brought up by our code as PID 1 of namespaces of its own: fresh, after each death, refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.dockerd_rig import Alone, alone, folder_on_disk, load_image, run_sleeper, why_unavailable

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(bool(why_unavailable()), reason=f"no dockerd can be brought up here: {why_unavailable()}"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    with folder_on_disk() as made:
        yield made


def info(target: Alone, field: str) -> str:
    return target.shell(f"docker info --format '{{{{{field}}}}}'").strip()


def refused(target: Alone) -> dict[str, str]:
    answer = target.do("start")
    assert "error" in answer, answer
    return {"code": answer["code"], "text": answer["error"]}


def test_a_fresh_daemon_is_proved_and_is_as_configured(folder: Path) -> None:
    with alone(folder) as target:
        up = target.up()
        assert "the label is ours" in up["detail"]
        assert info(target, ".Driver") == "overlay2", "DOCKER_DRIVER=vfs in our environment must not count"
        assert info(target, ".Labels") == "[com.container-supervisor.install=0123abcd]"
        assert (info(target, ".LoggingDriver"), info(target, ".LiveRestoreEnabled")) == ("json-file", "false")
        mtu = target.shell("docker network inspect bridge")
        assert json.loads(mtu)[0]["Options"]["com.docker.network.driver.mtu"] == "1400", "the uplink's"
        subnet = json.loads(mtu)[0]["IPAM"]["Config"][0]["Subnet"]
        assert subnet == "172.17.0.0/24", "our pool, not dockerd's /16"
        record = json.loads((target.run / "dockerd.record.json").read_text())
        assert (record["pid"], record["instance"]) == (up["pid"], "0123abcd")
        assert record["socket_inode"] == (target.run / "docker.sock").stat().st_ino
        assert not (target.data / ".supervisor-clean-stop").exists()
        shared = f"docker run -d --stop-signal KILL -v {folder}:/shared:rshared {load_image(target)} /bin/sleep 1000"
        assert target.shell(shared), "needs the mounts made shared, which the namespaces are not by themselves"


def test_one_term_ends_it_in_order_and_leaves_the_marker(folder: Path) -> None:
    with alone(folder) as target:
        target.up()
        run_sleeper(target, load_image(target))
        assert {"containerd", "containerd-shim", "sleep"} <= set(target.do("processes")["names"])
        target.do("stop_twice")
        heard = target.do("heard")
        assert sum("Processing signal" in line for line in heard["log"]) == 1
        assert (target.data / ".supervisor-clean-stop").exists()
        assert not (target.run / "docker.sock").exists()
        assert not (target.run / "dockerd.pid").exists()
        assert not engine_processes(target)

    with alone(folder) as target:
        target.up()
        assert target.do("heard")["clean"] is True


def engine_processes(target: Alone) -> list[str]:
    names = target.do("processes")["names"]
    return [name for name in names if name.startswith(("dockerd", "containerd", "sleep"))]


def test_a_killed_daemon_comes_back_warm_and_takes_care_of_what_it_left(folder: Path) -> None:
    with alone(folder) as target:
        first = target.up()
        sleeper = run_sleeper(target, load_image(target))
        assert target.do("kill")["end"] == "killed by SIGKILL"
        assert {"containerd-shim", "sleep"} <= set(target.do("processes")["names"]), "containers outlive dockerd"
        second = target.up()
        assert second["pid"] != first["pid"]
        assert any(line.startswith("warm start: removed") for line in target.do("heard")["reported"])
        assert sleeper[:12] in target.shell("docker ps -aq")
        target.shell(f"docker start {sleeper}")
        assert sleeper[:12] in target.shell("docker ps -q")
        target.do("stop")
        assert not engine_processes(target)


def test_a_killed_container_comes_back_cold_and_loses_nothing(folder: Path) -> None:
    with alone(folder) as target:
        target.up()
        image = load_image(target)
        sleeper = run_sleeper(target, image)
        target.kill_world()
    assert (folder / "run" / "dockerd.pid").exists()
    with alone(folder) as target:
        target.up()
        heard = target.do("heard")
        assert heard["clean"] is False
        assert any("unclean stop" in line for line in heard["reported"])
        assert any(line.startswith("cold start: removed") for line in heard["reported"])
        assert image in target.shell("docker images -q --no-trunc")
        assert sleeper[:12] in target.shell("docker ps -aq")


def test_pid_files_naming_a_live_stranger_and_a_containerd_zombie_do_not_matter(folder: Path) -> None:
    with alone(folder) as target:
        stranger = target.shell("sleep 1000 >/dev/null 2>&1 & echo $!").strip()
        target.shell(f"mkdir -p {target.run}/docker/containerd && printf {stranger} >{target.run}/dockerd.pid")
        program = folder / "containerd"
        program.write_bytes(Path("/bin/true").read_bytes())
        program.chmod(0o755)
        zombie = target.do("zombie", path=str(program))
        assert zombie["comm"] == "containerd"
        target.shell(f"printf {zombie['pid']} >{target.run}/docker/containerd/containerd.pid")
        up = target.up()
        assert up["seconds"] < 15, "a containerd pid file that is believed costs 15 s and the start"
        assert "sleep" in target.do("processes")["names"], "the stranger lives on"


def test_an_empty_folder_in_the_sockets_place_goes_and_a_full_one_is_e10(folder: Path) -> None:
    with alone(folder) as target:
        (folder / "run" / "docker.sock" / "in").mkdir(parents=True)
        error = refused(target)
        assert (error["code"], "move it away" in error["text"]) == ("E10", True)
        (folder / "run" / "docker.sock" / "in").rmdir()
        target.up()


def test_a_mounted_folder_in_the_sockets_place_is_e09(folder: Path) -> None:
    place = folder / "run" / "docker.sock"
    with alone(folder, scene=(f"mkdir -p {place}", f"mount -t tmpfs tmpfs {place}")) as target:
        error = refused(target)
        assert (error["code"], "make this container anew" in error["text"]) == ("E09", True)
    assert place.is_dir()


def test_a_data_root_that_another_uses_is_e24_naming_it(folder: Path) -> None:
    with alone(folder) as first, folder_on_disk() as other, alone(other, data_root=str(folder / "data")) as second:
        first.up()
        error = refused(second)
        assert error["code"] == "E24"
        assert f"container {os.uname().nodename}, pid 1 there" in error["text"]
        first.do("stop")
        first.do("renew")
        second.up()


def test_state_of_two_drivers_is_e23_and_one_is_kept(folder: Path) -> None:
    (folder / "data" / "vfs" / "dir").mkdir(parents=True)
    with alone(folder) as target:
        (folder / "data" / "overlay2" / "some-layer").mkdir(parents=True)
        error = refused(target)
        assert (error["code"], "overlay2, vfs" in error["text"]) == ("E23", True)
        (folder / "data" / "overlay2" / "some-layer").rmdir()
        (folder / "data" / "overlay2").rmdir()
        target.up()
        assert info(target, ".Driver") == "vfs"


def test_a_data_root_in_memory_is_e23(folder: Path) -> None:
    root = folder / "data"
    with alone(folder, scene=(f"mkdir {root}", f"mount -t tmpfs tmpfs {root}")) as target:
        error = refused(target)
        assert (error["code"], "tmpfs" in error["text"], "-v dokploy-docker:" in error["text"]) == ("E23", True, True)


@pytest.mark.parametrize("allowed", [False, True])
def test_a_data_root_in_the_containers_layer_needs_the_opt_in(folder: Path, allowed: bool) -> None:
    layer = folder / "layer"
    scene = (
        f"mkdir -p {layer}/lower {layer}/upper {layer}/work {layer}/root",
        f"mount -t overlay overlay -o lowerdir={layer}/lower,upperdir={layer}/upper,workdir={layer}/work {layer}/root",
    )
    with alone(folder, scene=scene, data_root=f"{layer}/root", allow_layer=allowed) as target:
        if not allowed:
            assert refused(target)["code"] == "E23"
            return
        target.up()
        assert any("DATA WILL BE LOST" in line for line in target.do("heard")["reported"])
        run_sleeper(target, load_image(target))


def test_a_legacy_nat_table_is_used_where_it_is_asked_for(folder: Path) -> None:
    if subprocess.run(["iptables-legacy", "-t", "nat", "-nL"], capture_output=True).returncode != 0:
        pytest.skip("this kernel has no legacy tables")
    with alone(folder, iptables="legacy") as target:
        target.up()
        assert "DOCKER" in target.shell("iptables-legacy -t nat -S")
        assert "DOCKER" not in target.shell("iptables-nft -t nat -S")


def test_a_daemon_json_that_dockerd_refuses_is_explained(folder: Path) -> None:
    (folder / "daemon.json").write_text('{"no-such-key": 1}')
    with alone(folder) as target:
        started = target.do("start")
        if "error" in started:  # from 23.0 on dockerd can judge it beforehand
            assert "no-such-key" in started["error"]
            return
        why = target.do("end")["why"]
        assert why.startswith("E25: cannot start dockerd: it exited with 1 (attempt 1): ")
        assert "no-such-key; correct daemon.json" in why
        assert why in target.do("heard")["reported"]


def test_what_validate_says_is_surfaced_before_anything_starts(folder: Path) -> None:
    program = folder / "dockerd"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo "Docker version 26.1.5, build 0"\n'
        '[ "$3" = --validate ] || exit 9\ngrep -q mtu "$2" && echo "bad mtu"; exit 1\n'
    )
    program.chmod(0o755)
    with alone(folder, program=str(program)) as target:
        error = refused(target)
        assert error["code"] == "E25"
        assert f"cannot use '{folder}/daemon.json'" in error["text"]
        assert "bad mtu" in error["text"]


def test_no_dockerd_in_the_image_is_e08(folder: Path) -> None:
    with alone(folder, program="no-such-dockerd") as target:
        assert refused(target)["code"] == "E08"


def test_a_daemon_that_outlasts_the_grace_is_ended_with_all_it_ran(folder: Path) -> None:
    with alone(folder) as target:
        target.up()
        image = load_image(target)
        # PID 1 without a handler: it ignores TERM for all of its thirty seconds.
        target.shell(f"docker run -d --stop-timeout 30 {image} /bin/sleep 1000")
        assert target.do("stop", grace=0.5)["seconds"] < 10
        assert not engine_processes(target)
        assert not (target.data / ".supervisor-clean-stop").exists()


def test_a_supervised_daemon_that_is_killed_is_back_by_itself(folder: Path) -> None:
    with alone(folder) as target:
        seen = target.do("supervised_kill")
        assert seen["running"] is None
        assert seen["seconds"] < 30
        assert not engine_processes(target)
        assert (target.data / ".supervisor-clean-stop").exists()


def test_a_hung_daemon_fails_its_probe_and_still_ends_in_order(folder: Path) -> None:
    with alone(folder) as target:
        target.up()
        hung = target.do("freeze")
        assert hung["answer"] == "waiting"
        assert "does not answer (starting, or hung): no answer within 2 s" in hung["detail"]
        assert target.do("stop", grace=20)["seconds"] < 10
        assert (target.data / ".supervisor-clean-stop").exists()


def test_a_killed_daemon_that_is_then_stopped_leaves_no_process_and_no_marker(folder: Path) -> None:
    with alone(folder) as target:
        target.up()
        run_sleeper(target, load_image(target))
        target.do("kill")
        target.do("stop")
        assert not engine_processes(target)
        assert not (target.data / ".supervisor-clean-stop").exists()
