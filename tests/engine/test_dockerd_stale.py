"""What a dead daemon left: pid files judged by who they name, sockets, namespace files, the API socket's place."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import stale
from supervisor.engine.dockerd.mounts import Mount
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.record import LastStop
from supervisor.engine.dockerd.stale import PidFile, SocketPath, clean, engine_runs, judge, look_at, may_remove
from supervisor.process.procfs import Stat
from tests.engine.dockerd_rig import folder_on_disk

S = SocketPath


def process(comm: str, state: str = "S", pid: int = 42) -> Stat:
    return Stat(pid, comm, state, 1, pid, pid, 1000)


@pytest.mark.parametrize(
    ("text", "found", "command_line", "verdict"),
    [
        (None, None, "", PidFile.ABSENT),
        ("", None, "", PidFile.GARBAGE),
        ("forty-two", None, "", PidFile.GARBAGE),
        ("-1", None, "", PidFile.GARBAGE),
        ("\u0664\u0662", None, "", PidFile.GARBAGE),
        ("42", None, "", PidFile.DEAD),
        ("42\n", process("containerd", "Z"), "containerd --config /run/d", PidFile.ZOMBIE),
        ("42", process("containerd", "X"), "containerd --config /run/d", PidFile.ZOMBIE),
        ("42", process("postgres"), "postgres /run/d", PidFile.STRANGER),
        ("42", process("containerd"), "containerd --config /run/another", PidFile.STRANGER),
        ("42", process("containerd"), "containerd --config /run/d", PidFile.LIVE),
    ],
)
def test_a_pid_file_is_judged_by_the_process_it_names(
    text: str | None, found: Stat | None, command_line: str, verdict: PidFile
) -> None:
    assert judge(text, lambda _: found, program="containerd", command_line=command_line, mark="/run/d") is verdict


@pytest.mark.parametrize(
    ("processes", "runs"),
    [
        ([], False),
        ([process("python3"), process("postgres")], False),
        ([process("containerd", "Z"), process("dockerd", "X")], False),
        ([process("dockerd")], True),
        ([process("python3"), process("containerd-shim")], True),
        ([process("containerd-shim"[:15])], True),
    ],
)
def test_zombies_are_no_running_engine(processes: list[Stat], runs: bool) -> None:
    assert engine_runs(processes) is runs


@pytest.mark.parametrize(
    ("kind", "mounted", "answers", "outcome"),
    [
        (S.ABSENT, False, False, False),
        (S.SOCKET, False, False, True),
        (S.EMPTY_FOLDER, False, False, True),
        (S.EMPTY_FILE, False, False, True),
        (S.DANGLING, False, False, True),
        (S.SOCKET, False, True, "E25"),
        (S.SOCKET, True, False, "E12"),
        (S.EMPTY_FILE, True, False, "E12"),
        (S.EMPTY_FOLDER, True, False, "E09"),
        (S.FOLDER, True, False, "E09"),
        (S.FOLDER, False, False, "E10"),
        (S.OTHER, False, False, "E10"),
    ],
)
def test_only_what_is_nobodys_is_removed_from_the_sockets_place(
    kind: SocketPath, mounted: bool, answers: bool, outcome: bool | str
) -> None:
    if isinstance(outcome, bool):
        assert may_remove("/var/run/docker.sock", kind, mounted=mounted, answers=answers) is outcome
        return
    with pytest.raises(EngineError, match=r"cannot listen on '/var/run/docker.sock'") as caught:
        may_remove("/var/run/docker.sock", kind, mounted=mounted, answers=answers)
    assert caught.value.code == outcome


def test_what_lies_in_the_sockets_place_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty folder").mkdir()
    (tmp_path / "folder" / "in").mkdir(parents=True)
    (tmp_path / "empty file").touch()
    (tmp_path / "other").write_text("x")
    (tmp_path / "dangling link").symlink_to(tmp_path / "nowhere")
    for name in ("empty folder", "folder", "empty file", "other", "dangling link", "absent"):
        assert look_at(tmp_path / name).value == name


@pytest.fixture
def places() -> Iterator[Places]:
    with folder_on_disk() as folder:  # a short path: sockets are made in it
        made = Places(runtime=folder / "run", data_root=folder / "data", socket=folder / "run" / "docker.sock")
        (made.exec_root / "containerd").mkdir(parents=True)
        (made.exec_root / "netns").mkdir()
        made.data_root.mkdir()
        yield made


def dead_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    return path


def fill(places: Places) -> dict[str, Path]:
    """What a killed container leaves."""
    left = {
        "pid": places.pid_file,
        "containerd pid": places.containerd_pid_file,
        "namespace": places.exec_root / "netns" / "1234",
        "settings": places.exec_root / "containerd" / "containerd.toml",
        "data": places.data_root / "docker.pid",
    }
    for path in left.values():
        path.write_text(str(os.getpid()))
    left["containerd socket"] = dead_socket(places.exec_root / "containerd" / "containerd.sock")
    left["socket"] = dead_socket(places.socket)
    return left


def remaining(left: dict[str, Path]) -> set[str]:
    return {name for name, path in left.items() if path.exists()}


def test_a_cold_start_removes_all_runtime_state_and_no_data(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "read_processes", lambda: [process("python3"), process("containerd", "Z")])
    left = fill(places)
    cleaned = clean(places, table=[])
    assert (cleaned.cold, len(cleaned.removed)) == (True, 5)
    assert remaining(left) == {"settings", "data"}
    assert clean(places, table=[]).removed == ()


def test_a_warm_start_removes_only_pid_files_of_nobody_of_ours(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "read_processes", lambda: [process("containerd-shim")])
    left = fill(places)
    assert not clean(places, table=[]).cold
    assert remaining(left) == {"namespace", "settings", "data", "containerd socket"}


def test_what_is_mounted_is_neither_removed_nor_entered(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stale, "read_processes", list)
    left = fill(places)
    table = [
        Mount("/", str(point), "tmpfs", "tmpfs", frozenset({"rw"}))
        for point in (left["namespace"], places.exec_root / "containerd")
    ]
    clean(places, table=table)
    assert remaining(left) == {"namespace", "settings", "data", "containerd socket"}


def test_a_mounted_socket_is_never_removed(places: Places) -> None:
    left = fill(places)
    table = [Mount("/", str(places.socket), "tmpfs", "tmpfs", frozenset({"rw"}))]
    with pytest.raises(EngineError, match="a mount lies over it") as caught:
        clean(places, table=table)
    assert caught.value.code == "E12"
    assert "socket" in remaining(left)


def test_a_socket_somebody_listens_on_is_never_removed(places: Places) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places.socket))
        listener.listen()
        with pytest.raises(EngineError, match="another process listens there"):
            clean(places, table=[])
    assert places.socket.exists()


def test_the_marker_of_an_orderly_stop_is_there_only_between_two_daemons(tmp_path: Path) -> None:
    stop = LastStop(tmp_path / "marker")
    assert stop.begin(used=False), "a fresh root"
    assert not stop.begin(used=True), "killed"
    stop.ended_in_order()
    assert stop.begin(used=True)
    assert not stop.begin(used=True)
