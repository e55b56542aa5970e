"""The engine's facts in `supervisor doctor`: judged on values, read from an engine of tests, and in real containers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from supervisor.commands import doctor_engine
from supervisor.commands.doctor_engine import Asked, Look
from supervisor.commands.fact import Fact, Grade
from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode, Owner
from supervisor.core.settings import Settings
from supervisor.engine.decision import Decision, Wait
from supervisor.engine.facts import (
    Cgroup,
    Chosen,
    DataRoot,
    EngineAddress,
    EngineInfo,
    Facts,
    OwnContainer,
    Privileges,
    Probe,
    Probed,
    Scheme,
)
from supervisor.engine.labels import STACK
from supervisor.state import Paths
from tests.engine_rig.engine import Share

GIB = 1 << 30
PATHS = Paths(Path("/var/lib/supervisor"), Path("/run/supervisor"), Path("/run/supervisor/control.sock"))
FACTS = Facts(
    chosen=Chosen(EngineAddress(Scheme.UNIX, path="/var/run/docker.sock")),
    privileges=Privileges(effective=2**41 - 1, mount=Probe(Probed.OK), cgroup=Probe(Probed.OK)),
    cgroup=Cgroup(version="v2"),
    data_root=DataRoot("/var/lib/docker", "/var/lib/docker", "ext4", 50 * GIB, 1_000_000),
    engine=EngineInfo(version="26.1.5", api_version="1.45", least_api_version="1.24"),
)
INFO = {"Driver": "overlay2", "DockerRootDir": "/var/lib/docker", "Swarm": {"LocalNodeState": "inactive"}}
MIB = 1 << 20


def seen(mode: Mode = Mode.SOCKET, facts: Facts = FACTS, info: dict[str, Any] | None = None, **of_asked: Any) -> Look:
    defaults: dict[str, Any] = {"containers": (), "services": (), "clock_seconds": 0.0}
    asked = Asked(INFO if info is None else info, **(defaults | of_asked))
    owner = Owner.OWN if mode is Mode.DIND else None
    return Look(facts, Decision(mode=mode, row=7, reason="so it is", owner=owner), asked, 50 * GIB)


def judged(look: Look, settings: Settings | None = None) -> dict[str, list[Fact]]:
    facts: dict[str, list[Fact]] = {}
    for fact in doctor_engine.judge(look, settings or Settings(), PATHS):
        facts.setdefault(fact.name, []).append(fact)
    return facts


def only(look: Look, name: str, settings: Settings | None = None) -> Fact:
    (fact,) = judged(look, settings)[name]
    return fact


# The mode.


def test_the_decision_is_told_with_its_evidence_and_its_warnings() -> None:
    look = seen()
    assert isinstance(look.outcome, Decision)
    look = replace(look, outcome=replace(look.outcome, warnings=("it is odd; do this",)))
    facts = judged(look)
    decided, warned = facts["mode"]
    assert (decided.grade, decided.found) == (Grade.OK, "socket: so it is (row 7)")
    assert (warned.grade, warned.found, warned.mend) == (Grade.WARNING, "it is odd", "do this")
    assert any("missing capabilities: none" in fact.found for fact in facts["evidence"])


@pytest.mark.parametrize("waits", [False, True])
def test_no_engine_is_failed_with_the_code_of_the_error(waits: bool) -> None:
    error = EngineError("E12", "cannot use the engine: nobody listens; start Docker")
    fact = only(replace(seen(), outcome=Wait(9, 60, error) if waits else error), "mode")
    assert fact.grade is Grade.FAILED
    assert fact.found.startswith("E12: cannot use the engine: nobody listens")
    assert fact.mend == "start Docker"
    assert ("a run waits up to 60 s" in fact.found) is waits


@pytest.mark.parametrize("mode", [Mode.EMBEDDED, Mode.NONE])
def test_without_an_engine_only_the_mode_and_the_state_count(mode: Mode) -> None:
    look = Look(replace(FACTS, engine=None), Decision(mode=mode, row=1, reason="chosen"))
    assert set(judged(look)) == {"mode", "state is kept"}


# What a run may do here.


@pytest.mark.parametrize(("mode", "grade"), [(Mode.DIND, Grade.FAILED), (Mode.SOCKET, Grade.NOTE)])
def test_missing_privileges_stop_dind_alone(mode: Mode, grade: Grade) -> None:
    held = Privileges(mount=Probe(Probed.FAILED, "no"), cgroup=Probe(Probed.FAILED, "read-only"))
    look = seen(mode, replace(FACTS, privileges=held))
    assert only(look, "capabilities").grade is only(look, "cgroup").grade is grade
    assert "missing SYS_ADMIN, NET_ADMIN" in only(look, "capabilities").found
    assert "mount a tmpfs: no" in only(look, "capabilities").found
    assert only(look, "cgroup").found == "v2, not writable (read-only)"


def test_full_privileges_are_good_in_both() -> None:
    for mode in (Mode.DIND, Mode.SOCKET):
        look = seen(mode)
        assert only(look, "capabilities").grade is only(look, "cgroup").grade is Grade.OK


def test_data_of_our_own_engine_in_the_layer_is_a_warning_with_the_volume_to_mount() -> None:
    layer = DataRoot("/var/lib/docker", "/", "overlay", 50 * GIB, 1_000_000)
    fact = only(seen(Mode.DIND, replace(FACTS, data_root=layer)), "storage")
    assert (fact.grade, fact.mend) == (Grade.WARNING, "mount a volume there: -v dokploy-docker:/var/lib/docker")
    assert only(seen(Mode.DIND), "storage").grade is Grade.OK
    assert "overlay2 in /var/lib/docker" in only(seen(Mode.SOCKET), "storage").found


@pytest.mark.parametrize(("free", "grade"), [(10_000, Grade.OK), (1000, Grade.WARNING), (100, Grade.FAILED)])
def test_the_engines_disk_is_judged_by_its_room(free: int, grade: Grade) -> None:
    root = replace(FACTS.data_root, free_bytes=free * MIB)
    assert only(seen(Mode.DIND, replace(FACTS, data_root=root)), "engine disk").grade is grade
    assert only(replace(seen(), layer_free_bytes=free * MIB), "engine disk").grade is grade


# The engine.


@pytest.mark.parametrize(
    ("least", "newest", "grade"),
    [
        ("1.12", "1.41", Grade.OK),
        ("1.12", "1.40", Grade.FAILED),
        ("1.44", "1.52", Grade.OK),
        ("1.90", "2.0", Grade.FAILED),
    ],
)
def test_an_engine_is_judged_by_the_apis_it_speaks(least: str, newest: str, grade: Grade) -> None:
    engine = EngineInfo(version="x", api_version=newest, least_api_version=least)
    fact = only(seen(facts=replace(FACTS, engine=engine)), "engine")
    assert (fact.grade, fact.found) == (grade, f"x, API {least} to {newest}")


@pytest.mark.parametrize(
    ("cluster", "init", "grade", "words"),
    [
        ({"LocalNodeState": "inactive"}, "auto", Grade.NOTE, "a run begins one"),
        ({"LocalNodeState": "inactive"}, "never", Grade.FAILED, "SWARM_INIT=never"),
        (
            {"LocalNodeState": "active", "ControlAvailable": True, "NodeAddr": "127.0.0.1"},
            "auto",
            Grade.OK,
            "127.0.0.1",
        ),
        ({"LocalNodeState": "active"}, "auto", Grade.FAILED, "E20"),
        ({"LocalNodeState": "locked"}, "auto", Grade.FAILED, "E19"),
        ({"LocalNodeState": "pending"}, "auto", Grade.WARNING, "pending"),
    ],
)
def test_swarm_is_judged_by_what_a_run_would_do(cluster: dict[str, Any], init: Any, grade: Grade, words: str) -> None:
    fact = only(seen(info={"Swarm": cluster}), "swarm", Settings(swarm_init=init))
    assert fact.grade is grade
    assert words in fact.found
    assert fact.mend or grade is Grade.OK


@pytest.mark.parametrize(
    ("seconds", "grade", "words"),
    [(0.1, Grade.OK, "0.1 s ahead"), (-7.0, Grade.WARNING, "7.0 s behind"), (None, Grade.NOTE, "does not tell")],
)
def test_two_clocks_that_differ_are_a_warning(seconds: float | None, grade: Grade, words: str) -> None:
    fact = only(seen(clock_seconds=seconds), "clock")
    assert fact.grade is grade
    assert words in fact.found


@pytest.mark.parametrize("text", ["2026-01-01T00:00:01.123456789Z", "2026-01-01T02:00:01.123456789+02:00"])
def test_the_engines_time_is_read_with_its_offset(text: str) -> None:
    assert doctor_engine.ahead({"SystemTime": text}, 1767225600.0) == pytest.approx(1.123456, abs=1e-4)
    assert doctor_engine.ahead({"SystemTime": "soon"}, 0.0) is None


@pytest.mark.parametrize(
    ("labels", "grade", "words"),
    [({STACK: "dokploy"}, Grade.OK, "our container 'web'"), ({}, Grade.FAILED, "taken by container 'web'")],
)
def test_a_taken_port_of_the_engine_names_its_holder(labels: dict[str, str], grade: Grade, words: str) -> None:
    container = {"Id": "1" * 64, "Names": ["/web"], "Labels": labels, "Ports": [{"PrivatePort": 8, "PublicPort": 80}]}
    look = seen(containers=[container])
    fact = only(look, "engine port 80")
    assert fact.grade is grade
    assert words in fact.found
    assert ("SUPERVISOR_HTTP_PORT" in fact.mend) is (grade is Grade.FAILED)
    assert only(look, "engine port 443").grade is Grade.OK


def test_a_port_that_a_service_publishes_is_taken_too() -> None:
    service = {"Spec": {"Name": "proxy"}, "Endpoint": {"Ports": [{"PublishedPort": 443}]}}
    fact = only(seen(services=[service]), "engine port 443")
    assert (fact.grade, fact.found) == (Grade.FAILED, "443 is taken by service 'proxy'")


@pytest.mark.parametrize("published", [True, False])
def test_the_apps_port_outside_is_told(published: bool) -> None:
    us = "a" * 64
    port = {"PrivatePort": 3000} | ({"PublicPort": 3001, "IP": "0.0.0.0"} if published else {})
    look = seen(facts=replace(FACTS, own_container=OwnContainer((), us)), containers=[{"Id": us, "Ports": [port]}])
    fact = only(look, "app from outside")
    assert fact.grade is (Grade.OK if published else Grade.NOTE)
    assert ("published at 0.0.0.0:3001" in fact.found) is published


def test_in_dind_the_ports_are_those_of_this_machine() -> None:
    assert not [name for name in judged(seen(Mode.DIND)) if name.startswith("engine port")]


def test_state_that_goes_with_the_container_is_a_warning() -> None:
    fact = only(replace(seen(), keeping="it lies in the layer; start it with `-v a:b`"), "state is kept")
    assert (fact.grade, fact.mend) == (Grade.WARNING, "start it with `-v a:b`")


# Read for real.


@pytest.mark.engine
def test_an_engine_that_is_named_is_asked(docker: Share, tmp_path: Path) -> None:
    host = docker.engine.host
    environ = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "DOCKER_HOST": host}
    environ["SUPERVISOR_STATE_DIR"] = str(tmp_path)
    found = doctor_engine.examine(Settings(docker_host=host), environ, PATHS)
    facts = {fact.name: fact for fact in found}
    version = docker.engine.output("version", "--format", "{{.Server.Version}}")
    assert facts["mode"].found.startswith("remote: ")
    assert facts["engine"].found.startswith(f"{version}, API ")
    assert facts["clock"].grade is facts["engine port 80"].grade is Grade.OK


def in_container(docker: Share, *options: str, word: str = "box") -> dict[str, dict[str, str]]:
    """The facts that `supervisor doctor` tells in a container of our image."""
    done = docker.engine.run(
        *("run", "--rm", "--name", docker.name(word), "--label", docker.label, *options),
        *(docker.engine.image("supervisor"), "supervisor", "doctor", "--json"),
        check=False,
    )
    return {fact["fact"]: fact for fact in json.loads(done.stdout) if fact["fact"] != "evidence"}


@pytest.mark.engine
def test_in_a_container_with_a_socket_the_engine_is_told(docker: Share) -> None:
    socket = docker.engine.host.removeprefix("unix://")
    facts = in_container(docker, "--volume", f"{socket}:/var/run/docker.sock", "--publish", "127.0.0.1::3000")
    assert facts["mode"]["found"].startswith("socket: ")
    assert facts["engine"]["found"].startswith(docker.engine.output("version", "--format", "{{.Server.Version}}"))
    assert facts["clock"]["grade"] == "ok"
    assert "port 3000 is published at 127.0.0.1:" in facts["app from outside"]["found"]
    assert "missing SYS_ADMIN" in facts["capabilities"]["found"]
    assert "on an anonymous volume" in facts["state is kept"]["found"]  # the image's own VOLUME
    assert "-v dokploy-supervisor:/var/lib/supervisor" in facts["state is kept"]["mend"]


@pytest.mark.engine
def test_in_a_bare_container_the_missing_engine_is_failed(docker: Share) -> None:
    facts = in_container(docker, "--volume", f"{docker.volume()}:/var/lib/supervisor")
    assert facts["mode"]["grade"] == "failed"
    assert facts["mode"]["found"].startswith("E")
    assert facts["state is kept"]["grade"] == "ok"
