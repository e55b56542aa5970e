"""The generated configuration, a user's daemon.json in it, and what dockerd's last lines mean."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError, EngineError
from supervisor.engine.dockerd import hints
from supervisor.engine.dockerd.config import ConfigInput, build, judge_validation, parse_version, read_user_config
from supervisor.engine.dockerd.network_facts import NetworkFacts, Pools
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.preflight import daemon_environ

PLACES = Places(runtime=Path("/run/supervisor"), data_root=Path("/var/lib/docker"), socket=Path("/run/docker.sock"))
GIVEN = ConfigInput(
    places=PLACES,
    install_uuid="ab12",
    storage_driver="overlay2",
    network=NetworkFacts(1450, ("10.0.0.2",), Pools(IPv4Network("172.18.0.0/16"), None)),
    shutdown_seconds=60,
)


def built(user: dict[str, object], given: ConfigInput = GIVEN) -> tuple[dict[str, object], tuple[str, ...]]:
    made = build(given, user)
    return json.loads(made.text), made.notes


def test_the_configuration_without_a_users_own() -> None:
    values, notes = built({})
    assert notes == ()
    assert values == {
        "hosts": ["unix:///run/docker.sock"],
        "pidfile": "/run/supervisor/dockerd.pid",
        "exec-root": "/run/supervisor/docker",
        "data-root": "/var/lib/docker",
        "live-restore": False,
        "iptables": True,
        "storage-driver": "overlay2",
        "features": {"containerd-snapshotter": False},
        "labels": ["com.container-supervisor.install=ab12"],
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "shutdown-timeout": 60,
        "mtu": 1450,
        "dns": ["10.0.0.2"],
        "default-address-pools": [{"base": "172.18.0.0/16", "size": 24}],
    }


def test_what_is_not_known_is_left_to_dockerd() -> None:
    values, _ = built({}, replace(GIVEN, network=NetworkFacts(None, (), Pools(None, None))))
    assert not {"mtu", "dns", "default-address-pools", "ip6tables", "cgroup-parent"} & values.keys()


def test_the_ground_shows_in_the_configuration() -> None:
    values, _ = built({}, replace(GIVEN, ipv6_rules=False, cgroup_parent="/docker/ab/docker"))
    assert (values["ip6tables"], values["cgroup-parent"], values["iptables"]) == (False, "/docker/ab/docker", True)


def test_a_user_may_choose_what_is_only_a_default() -> None:
    user: dict[str, object] = {
        "mtu": 1280,
        "dns": ["9.9.9.9"],
        "registry-mirrors": ["https://m"],
        "shutdown-timeout": 5,
    }
    values, notes = built(user)
    assert {name: values[name] for name in user} == user
    assert notes == ()


def test_another_log_driver_gets_no_caps_that_it_does_not_know() -> None:
    values, _ = built({"log-driver": "journald"})
    assert "log-opts" not in values
    assert built({"log-opts": {"max-size": "1m"}})[0]["log-opts"] == {"max-size": "1m"}


def test_what_would_break_us_is_overruled_and_said() -> None:
    user: dict[str, object] = {
        "hosts": ["tcp://0.0.0.0:2375"],
        "live-restore": True,
        "iptables": False,
        "storage-driver": "vfs",
        "data-root": "/var/lib/docker",
        "graph": "/elsewhere",
        "firewall-backend": "nftables",
    }
    values, notes = built(user)
    assert values["hosts"] == ["unix:///run/docker.sock"]
    assert (values["live-restore"], values["iptables"], values["storage-driver"]) == (False, True, "overlay2")
    assert not {"graph", "firewall-backend"} & values.keys()
    text = "\n".join(notes)
    for key in ("hosts", "live-restore", "iptables", "storage-driver", "graph", "firewall-backend"):
        assert f"'{key}' in daemon.json" in text
    assert "data-root" not in text, "the same value needs no word"


def test_labels_and_features_are_joined_and_ours_cannot_be_forged() -> None:
    values, _ = built(
        {
            "labels": ["site=a", "com.container-supervisor.install=stranger"],
            "features": {"buildkit": True, "containerd-snapshotter": True},
        }
    )
    assert values["labels"] == ["site=a", "com.container-supervisor.install=ab12"]
    assert values["features"] == {"buildkit": True, "containerd-snapshotter": False}


@pytest.mark.parametrize(("text", "said"), [("{", "Expecting property name"), ("[]", "no JSON object"), ("\xff", "")])
def test_a_daemon_json_that_is_none_is_e25_naming_it(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(EngineError, match=f"cannot use '{path}': .*{said}") as caught:
        read_user_config(path)
    assert caught.value.code == "E25"


def test_no_or_an_empty_daemon_json_says_nothing(tmp_path: Path) -> None:
    assert read_user_config(tmp_path / "daemon.json") == {}
    (tmp_path / "daemon.json").write_text(" \n")
    assert read_user_config(tmp_path / "daemon.json") == {}


def test_dockerds_own_complaint_is_surfaced() -> None:
    with pytest.raises(EngineError, match=r"cannot use '/etc/docker/daemon.json'.*no-such-key"):
        judge_validation(1, "directives don't match: no-such-key", user_config=Path("/etc/docker/daemon.json"))


def test_a_fine_configuration_raises_nothing() -> None:
    judge_validation(0, "configuration OK", user_config=Path("/etc/docker/daemon.json"))


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("Docker version 20.10.24+dfsg1, build 5d6db84", (20, 10)),
        ("Docker version 26.1.5+dfsg1, build 411e817", (26, 1)),
        ("Docker version dev, build abc", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_the_version_is_read_from_dockerds_own_line(said: str, version: tuple[int, int]) -> None:
    assert parse_version(said) == version


@pytest.mark.parametrize(
    ("version", "mtu", "told"), [((23, 0), 1450, False), ((24, 0), 1450, True), ((26, 1), 1500, False)]
)
def test_user_bridges_are_told_an_unusual_packet_size_where_dockerd_knows_how(
    version: tuple[int, int], mtu: int, told: bool
) -> None:
    values, _ = built({}, replace(GIVEN, version=version, network=replace(GIVEN.network, mtu=mtu)))
    options = {"bridge": {"com.docker.network.driver.mtu": str(mtu)}}
    assert values.get("default-network-opts") == (options if told else None)


def test_a_path_too_long_for_a_socket_is_said_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match=r"more than 107 bytes.*SUPERVISOR_RUNTIME_DIR"):
        Places(runtime=Path("/run/" + "x" * 90), data_root=Path("/d"), socket=Path("/s"))


def test_the_environment_overrules_nothing() -> None:
    environ = {
        "PATH": "/bin",
        "DOCKER_DRIVER": "vfs",
        "DOCKER_HOST": "tcp://h",
        "DOCKER_RAMDISK": "1",
        "HTTP_PROXY": "p",
    }
    assert daemon_environ(environ) == {
        "PATH": "/bin",
        "DOCKER_RAMDISK": "1",
        "HTTP_PROXY": "p",
        "container": "docker",
    }


LINES = {
    "failed to start daemon: pid file found, ensure docker is not running or delete /run/docker.pid": "end that one",
    "failed to start daemon: ensure docker is not running or delete /x.pid: process with PID 7 is still running": "end",
    "failed to load listeners: can't create unix socket /var/run/docker.sock: is a directory": "a directory is in",
    "failed to load listeners: can't create unix socket /var/run/docker.sock: device or resource busy": "mounted over",
    'level=fatal msg="Error initializing network controller: error creating default \\"bridge\\" network: Failed to '
    'program NAT chain: iptables failed: iptables -t nat -N DOCKER: Table does not exist (do you need to insmod?)"': (
        "nat table"
    ),
    "failed to start daemon: Error initializing network controller: error obtaining controller instance: failed to "
    "register NAT chain": "nat table",
    "failed to start daemon: Devices cgroup isn't mounted": "devices controller",
    "cannot enter cgroupv2 with domain controllers -- it is in an invalid state": "control groups leave no room",
    "failed to start daemon: error initializing graphdriver: /var/lib/docker contains several valid graphdrivers: "
    "overlay2, vfs; Please cleanup or explicitly choose storage driver": "several storage drivers",
    "failed to start daemon: error initializing graphdriver: overlay2: the backing xfs filesystem is formatted without "
    "d_type support": "ext4 or xfs",
    "failed to mount overlay: invalid argument": "ext4 or xfs",
    "failed to start daemon: write /var/lib/docker/x: no space left on device": "disk is full",
    "failed to start containerd: timeout waiting for containerd to start": "last daemon may still hold",
    "failed to start daemon: could not find an available, non-overlapping IPv4 address pool among the defaults": (
        "default-address-pools"
    ),
    "failed to start cluster component: --live-restore daemon configuration is incompatible with swarm mode": (
        "exclude each other"
    ),
    "unable to configure the Docker daemon with file /etc/docker/daemon.json: the following directives are specified "
    "both as a flag and in the configuration file: hosts": "correct daemon.json",
    "failed to start daemon: mkdir /var/lib/docker/tmp: read-only file system": "read-only",
    "failed to start daemon: mount: operation not permitted": "--privileged",
}


@pytest.mark.parametrize(("line", "advice"), LINES.items())
def test_each_known_last_line_has_its_hint(line: str, advice: str) -> None:
    hint = hints.find_hint([line])
    assert hint is not None
    assert advice in hint.advice


def test_every_hint_is_reached_by_some_line() -> None:
    assert {hints.find_hint([line]) for line in LINES} == set(hints.HINTS)


def test_an_error_line_outweighs_what_is_noise_beside_it() -> None:
    noise = 'level=warning msg="cannot set oom score: permission denied"'
    hint = hints.find_hint([noise, 'level=fatal msg="no space left on device"', noise])
    assert hint is not None
    assert "disk is full" in hint.advice


def test_the_failure_carries_line_hint_attempt_and_log() -> None:
    lines = ["level=info msg=starting", 'time="t" level=fatal msg="cannot write \\"x\\": no space left on device"']
    error = hints.failure(lines, ended="exited with 1", attempt=3, log="/log")
    assert (error.code, str(error)) == (
        "E25",
        'E25: cannot start dockerd: it exited with 1 (attempt 3): cannot write "x": no space left on device; '
        "the disk is full: free some of it (log: /log)",
    )


def test_a_failure_without_a_word_still_says_what_is_known() -> None:
    assert "it wrote nothing" in str(hints.failure([], ended="killed by SIGKILL", attempt=1, log="/log"))
    assert "something new" in str(hints.failure(["something new"], ended="exited with 1", attempt=1, log="/log"))


def test_lines_of_a_slow_start_are_progress_and_others_are_not() -> None:
    assert hints.shows_progress('level=info msg="Loading containers: start."')
    assert hints.shows_progress('level=info msg="Migrating snapshots"')
    assert not hints.shows_progress('level=error msg="something failed"')
