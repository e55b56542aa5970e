"""What is read of /proc, against processes that are known."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from supervisor.process import procfs

PRINT_AND_WAIT = "print('up', flush=True); import sys; sys.stdin.read()"


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process whose environment holds A=1."""
    with subprocess.Popen(
        [sys.executable, "-c", PRINT_AND_WAIT],
        env={"A": "1", "PATH": "/bin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        yield popen
        popen.kill()


def test_stat_tells_who_a_process_is(process: subprocess.Popen[bytes]) -> None:
    stat = procfs.read_stat(process.pid)
    assert stat is not None
    assert (stat.pid, stat.ppid, stat.group, stat.session) == (process.pid, os.getpid(), process.pid, process.pid)


def test_stat_survives_brackets_and_blanks_in_a_name() -> None:
    code = f"open('/proc/self/comm', 'w').write('a) Z (b'); {PRINT_AND_WAIT}"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        stat = procfs.read_stat(popen.pid)
        assert stat is not None
        assert (stat.comm, stat.ppid) == ("a) Z (b", os.getpid())
        popen.kill()


def test_start_time_and_now_are_on_one_scale() -> None:
    before = procfs.uptime_ticks()
    with subprocess.Popen([sys.executable, "-c", ""]) as popen:
        stat = procfs.read_stat(popen.pid)
    assert stat is not None
    assert before <= stat.start_ticks <= procfs.uptime_ticks()


def test_environment_is_matched_by_whole_entries(process: subprocess.Popen[bytes]) -> None:
    assert procfs.has_environ(process.pid, b"A=1")
    assert not procfs.has_environ(process.pid, b"A=")
    assert not procfs.has_environ(process.pid, b"=1")
    assert procfs.read_environ(process.pid)["A"] == "1"


def test_process_that_is_gone_has_nothing() -> None:
    with subprocess.Popen(["true"]) as popen:
        pass
    assert procfs.read_stat(popen.pid) is None
    assert procfs.read_environ(popen.pid) == {}
    assert not procfs.has_environ(popen.pid, b"A=1")
    assert procfs.command_line(popen.pid) == "?"
    assert not procfs.descends_from(popen.pid, os.getpid())


def test_descent_is_followed(process: subprocess.Popen[bytes]) -> None:
    assert procfs.descends_from(process.pid, os.getpid())
    assert procfs.descends_from(process.pid, os.getppid())
    assert not procfs.descends_from(os.getpid(), process.pid)
    assert os.getppid() in procfs.ancestors()
    assert not {os.getpid(), process.pid} & procfs.ancestors()


def test_port_is_traced_to_its_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert procfs.port_owners(port) == [os.getpid()]
        assert f"pid {os.getpid()} (" in procfs.describe_port_owner(port)
    assert procfs.port_owners(port) is None
    assert procfs.describe_port_owner(port) == "nobody any more"


def test_reading_leaves_no_descriptor_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for pid in procfs.pids():
        procfs.read_stat(pid)
        procfs.read_environ(pid)
        procfs.command_line(pid)
    assert len(os.listdir("/proc/self/fd")) == before


def test_long_environment_is_read_whole() -> None:
    env = {f"V{number}": "x" * 1000 for number in range(200)} | {"Z_LAST": "here"}
    with subprocess.Popen([sys.executable, "-c", PRINT_AND_WAIT], env=env, stdin=subprocess.PIPE) as popen:
        end = time.monotonic() + 10
        while not (found := procfs.has_environ(popen.pid, b"Z_LAST=here")) and time.monotonic() < end:
            pass  # between fork and exec it still has ours
        popen.kill()
    assert found


def test_the_work_of_a_session_is_that_of_its_processes() -> None:
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"], start_new_session=True)
    idle = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while procfs.session_work(busy.pid)[0] < 0.1:
            assert time.monotonic() < deadline, "a busy process was never seen to work"
        assert procfs.session_work(busy.pid)[1]
        used, wanting = procfs.session_work(idle.pid)
        assert (used < 0.1, wanting) == (True, False)
    finally:
        for process in (busy, idle):
            process.kill()
            process.wait()
