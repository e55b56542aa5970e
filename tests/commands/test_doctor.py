from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from supervisor.commands import doctor, doctor_machine, doctor_programs
from supervisor.commands.fact import Fact, Grade
from supervisor.core.settings import Settings
from supervisor.process.pid1 import Reaping, is_subreaper


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    state, runtime = tmp_path / "state", tmp_path / "run"
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "SUPERVISOR_STATE_DIR": str(state),
        "SUPERVISOR_RUNTIME_DIR": str(runtime),
    }


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that all may enter; those of `tmp_path` are for us alone."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def _taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def _free_port() -> int:
    with _taken_port() as port:
        return port


def _examine(environ: dict[str, str], name: str) -> list[Fact]:
    return [fact for fact in doctor.examine(environ) if fact.name == name]


def test_doctor_works_without_a_supervisor_and_prints_each_fact_with_its_mend(environ: dict[str, str]) -> None:
    environ |= {"SUPERVISOR_PORT": str(_free_port()), "SUPERVISOR_BOGUS": "1"}
    command = [sys.executable, "-m", "supervisor", "doctor"]
    text = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=30)
    as_json = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environ, timeout=30)
    facts = json.loads(as_json.stdout)
    assert all(fact["mend"] for fact in facts if fact["grade"] in ("warning", "failed"))
    failed = any(fact["grade"] == "failed" for fact in facts)
    assert text.returncode == as_json.returncode == (78 if failed else 0)
    assert "warning  settings" in text.stdout
    assert "unknown setting SUPERVISOR_BOGUS" in text.stdout
    assert not Path(environ["SUPERVISOR_STATE_DIR"]).exists()  # looking changes nothing


def test_broken_settings_are_a_failed_fact_and_the_rest_is_still_checked(environ: dict[str, str]) -> None:
    facts = list(doctor.examine(environ | {"SUPERVISOR_PORT": "many"}))
    assert facts[0].grade is Grade.FAILED
    assert "SUPERVISOR_PORT is 'many'" in facts[0].found
    assert len(facts) > 15


def test_exit_code_is_78_with_a_failed_fact_alone() -> None:
    note, warning = Fact.note("a", "b"), Fact.warning("a", "b", "c")
    assert doctor.exit_code([note, warning]) == 0
    assert doctor.exit_code([note, Fact.failed("a", "b", "c")]) == 78


def test_usage_error_exits_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--bogus"]) == 64
    assert "usage" in capsys.readouterr().err


def test_state_folder_below_a_file_is_failed(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (fact,) = _examine(environ | {"SUPERVISOR_STATE_DIR": str(tmp_path / "file" / "state")}, "state folder")
    assert (fact.grade, fact.found) == (Grade.FAILED, f"{str(tmp_path / 'file')!r} is no folder")


def test_state_folder_that_cannot_be_written_is_failed(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (fact,) = _examine(environ, "state folder")
    assert fact.grade is Grade.FAILED
    assert "SUPERVISOR_STATE_DIR" in fact.mend


@pytest.mark.skipif(os.geteuid() != 0, reason="only as root do servers run as users of their own")
def test_state_folder_postgres_cannot_enter_is_failed_and_named(environ: dict[str, str], open_folder: Path) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    settings = environ | {"SUPERVISOR_STATE_DIR": str(closed / "state")}
    (fact,) = _examine(settings, "postgres's data")
    assert fact.grade is Grade.FAILED
    assert str(closed) in fact.found
    closed.chmod(0o711)
    (fact,) = _examine(settings, "postgres's data")
    assert fact.grade is Grade.OK


def test_long_socket_path_is_failed(environ: dict[str, str], tmp_path: Path) -> None:
    (fact,) = _examine(environ | {"SUPERVISOR_SOCKET": str(tmp_path / ("x" * 110))}, "control socket")
    assert fact.grade is Grade.FAILED
    assert "the kernel takes 107" in fact.found


def test_running_supervisor_is_noted_and_its_ports_are_no_failure(environ: dict[str, str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener, _taken_port() as port:
        Path(environ["SUPERVISOR_RUNTIME_DIR"]).mkdir()
        listener.bind(f"{environ['SUPERVISOR_RUNTIME_DIR']}/control.sock")
        listener.listen()
        facts = {fact.name: fact for fact in doctor.examine(environ | {"SUPERVISOR_PORT": str(port)})}
    assert facts["control socket"].grade is facts["port of the app"].grade is Grade.NOTE
    assert "a supervisor runs" in facts["control socket"].found


def test_taken_port_is_failed_and_its_holder_named(environ: dict[str, str]) -> None:
    with _taken_port() as port:
        (fact,) = _examine(environ | {"SUPERVISOR_PORT": str(port)}, "port of the app")
    assert fact.grade is Grade.FAILED
    assert f"{port} is taken by pid {os.getpid()}" in fact.found
    assert "SUPERVISOR_PORT" in fact.mend


@pytest.mark.parametrize(("chosen", "grade"), [(None, Grade.NOTE), (80, Grade.FAILED)])
def test_port_80_that_is_not_ours_matters_where_it_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, chosen: int | None, grade: Grade
) -> None:
    monkeypatch.setattr(doctor_machine, "bind_error", lambda port, host: errno.EACCES if port == 80 else 0)
    facts = {fact.name: fact for fact in doctor_machine.ports(Settings(http_port=chosen), running=False)}
    assert facts["port for http"].grade is grade
    assert facts["port for https"].grade is Grade.OK
    assert ("8080 is used instead" in facts["port for http"].found) is (chosen is None)


@pytest.mark.parametrize(
    ("total", "limit", "grade"),
    [(4096, None, Grade.OK), (4096, 64, Grade.FAILED), (4096, 256, Grade.WARNING), (100, 4096, Grade.FAILED)],
)
def test_memory_is_judged_by_the_smaller_of_machine_and_container(
    monkeypatch: pytest.MonkeyPatch, total: int, limit: int | None, grade: Grade
) -> None:
    monkeypatch.setattr(doctor_machine, "_memory_total", lambda: total * 1024 * 1024)
    monkeypatch.setattr(doctor_machine, "_memory_limit", lambda: limit and limit * 1024 * 1024)
    fact = doctor_machine.memory()
    assert fact.grade is grade
    assert ("limit of the container" in fact.found) is (limit is not None and limit < total)


@pytest.mark.parametrize(
    ("soft", "grade"),
    [(resource.RLIM_INFINITY, Grade.OK), (1024, Grade.OK), (512, Grade.WARNING), (64, Grade.FAILED)],
)
def test_open_files_are_judged_by_our_limit(monkeypatch: pytest.MonkeyPatch, soft: int, grade: Grade) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, 4096))
    fact = doctor_machine.open_files()
    assert fact.grade is grade
    assert ("ulimit -n 4096" in fact.mend) is (grade is not Grade.OK)


@pytest.mark.parametrize(
    ("free", "files", "grade"),
    [(5000, 100_000, Grade.OK), (500, 100_000, Grade.WARNING), (50, 100_000, Grade.FAILED), (5000, 3, Grade.WARNING)],
)
def test_disk_is_judged_by_room_and_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, files: int, grade: Grade
) -> None:
    room = SimpleNamespace(f_bavail=free, f_frsize=1024 * 1024, f_files=1_000_000, f_favail=files)
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    assert doctor_machine.disk(tmp_path / "not" / "there").grade is grade


def test_missing_subreaper_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_machine, "can_adopt_orphans", lambda: Reaping.NONE)
    assert doctor_machine.reaping().grade is Grade.WARNING


def test_asking_for_orphans_makes_nobody_a_subreaper() -> None:
    assert not is_subreaper()
    assert doctor_machine.reaping().grade is Grade.OK
    assert not is_subreaper()


def test_missing_inotify_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    broken: Callable[..., Any] = lambda *_, **__: SimpleNamespace(inotify_init1=lambda _: -1)  # noqa: E731
    monkeypatch.setattr(ctypes, "CDLL", broken)
    fact = doctor_machine.watches()
    assert fact.grade is Grade.WARNING
    assert "max_user_instances" in fact.mend


@pytest.mark.parametrize(("mode", "grade"), [("embedded", Grade.FAILED), ("none", Grade.NOTE)])
def test_missing_binary_stops_embedded_mode_alone(environ: dict[str, str], mode: str, grade: Grade) -> None:
    settings = environ | {"SUPERVISOR_MODE": mode, "SUPERVISOR_REDIS_BINARY": "/nowhere/redis-server"}
    (fact,) = _examine(settings, "redis")
    assert fact.grade is grade
    assert "/nowhere/redis-server" in fact.found


def test_external_database_needs_no_binary(environ: dict[str, str]) -> None:
    (fact,) = _examine(environ | {"DATABASE_URL": "postgresql://u:secret-pass@h/d"}, "postgres")
    assert (fact.grade, fact.found) == (Grade.OK, "an external one is set; none is started")


def test_package_of_the_same_import_name_is_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor_programs.clash().grade is Grade.OK
    metadata = tmp_path / "supervisor-4.2.5.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.2.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fact = doctor_programs.clash()
    assert fact.grade is Grade.FAILED
    assert "4.2.5" in fact.found
    assert "never both" in fact.mend
