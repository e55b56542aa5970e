"""What a generation says of itself: the words without a socket, then real sockets, pipes and children."""

from __future__ import annotations

import array
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.app.notify import NotifySocket, Readiness, ReadyFd
from supervisor.app.sd_notify import MAX_DATAGRAM_BYTES, MAX_EXTENSION_SECONDS, MAX_STATUS_CHARACTERS, Said, listen_to
from supervisor.core.errors import ConfigurationError

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 15
NOW = 1000.0
READY = Said(said_ready=True)
SAYS = """
import os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
    ours.connect(os.environ["NOTIFY_SOCKET"])
    ours.send(sys.argv[1].encode())
"""


@pytest.mark.parametrize(
    ("before", "datagram", "after"),
    [
        (Said(), b"READY=1", READY),
        (Said(), b"READY=1\n", READY),
        (Said(), b"STATUS=warming up\nREADY=1", Said(said_ready=True, status="warming up")),
        (Said(), b"READY=0", Said()),
        (Said(), b"READY", Said()),
        (Said(), b"ready=1", Said()),
        (Said(), b"", Said()),
        (READY, b"STOPPING=1", Said(said_ready=True, stopping=True)),
        (READY, b"RELOADING=1", Said(said_ready=True, reloading_since=NOW)),
        (READY, b"RELOADING=1\nMONOTONIC_USEC=999500000", Said(said_ready=True, reloading_since=999.5)),
        (READY, b"RELOADING=1\nMONOTONIC_USEC=99999999999999", Said(said_ready=True, reloading_since=NOW)),
        (Said(said_ready=True, reloading_since=999.5), b"READY=1", READY),
        (Said(), b"WATCHDOG=1", Said(watchdog_at=NOW)),
        (Said(), b"WATCHDOG=trigger", Said()),
        (Said(), b"MAINPID=42", Said(main_pid=42)),
        (Said(main_pid=42), b"MAINPID=x", Said(main_pid=42)),
        (Said(), b"EXTEND_TIMEOUT_USEC=2500000", Said(extended_until=NOW + 2.5)),
        (Said(extended_until=NOW + 9), b"EXTEND_TIMEOUT_USEC=1", Said(extended_until=NOW + 9)),
        (Said(), b"EXTEND_TIMEOUT_USEC=18446744073709551615", Said(extended_until=NOW + MAX_EXTENSION_SECONDS)),
        (Said(), b"EXTEND_TIMEOUT_USEC=" + b"9" * 4000, Said()),
        (Said(), b"EXTEND_TIMEOUT_USEC=-5", Said()),
        (Said(), b"EXTEND_TIMEOUT_USEC=1_0", Said()),
        (Said(), "EXTEND_TIMEOUT_USEC=\u0663".encode(), Said()),
        (Said(), b"FDSTORE=1\nX_OWN=2\n\xff\xfe=\x00\nREADY=1", READY),
        (Said(), b"STATUS=a\x1b[31mred\x07", Said(status="a [31mred")),
        (Said(), b"STATUS=" + b"x" * 1000, Said(status="x" * MAX_STATUS_CHARACTERS)),
        (Said(), b"READY=1\n" + b"x" * MAX_DATAGRAM_BYTES, Said()),
    ],
)
def test_datagram_is_understood(before: Said, datagram: bytes, after: Said) -> None:
    assert listen_to(before, datagram, NOW) == after


def test_only_a_generation_that_is_neither_stopping_nor_reloading_is_ready() -> None:
    assert READY.ready
    assert not Said().ready
    assert not Said(said_ready=True, stopping=True).ready
    assert not Said(said_ready=True, reloading_since=1.0).ready


KEYS = ("READY", "STATUS", "STOPPING", "RELOADING", "MONOTONIC_USEC", "EXTEND_TIMEOUT_USEC", "WATCHDOG", "MAINPID", "?")
LINES = st.builds(lambda key, value: key.encode() + b"=" + value, st.sampled_from(KEYS), st.binary(max_size=40))


@given(st.lists(st.one_of(LINES, st.binary(max_size=80))).map(b"\n".join))
def test_no_datagram_raises_or_grows_what_is_kept(datagram: bytes) -> None:
    said = listen_to(Said(), datagram, NOW)
    assert len(said.status) <= MAX_STATUS_CHARACTERS
    assert said.status.isprintable()
    assert said.extended_until <= NOW + MAX_EXTENSION_SECONDS


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user may enter; a temporary one of pytest's may not be."""
    made = Path(tempfile.mkdtemp(prefix="notify-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@asynccontextmanager
async def running(readiness: Readiness) -> AsyncIterator[None]:
    """It listens; at the end it is cancelled, and nothing is left open."""
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            await group.start(readiness.run)
            yield
            group.cancel_scope.cancel()


def send(notify: NotifySocket, *datagrams: bytes, descriptor: int | None = None) -> None:
    rights = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.connect(dict(notify.environ)["NOTIFY_SOCKET"])
        for datagram in datagrams:
            ours.sendmsg([datagram], rights)


async def until(notify: NotifySocket, condition: Callable[[Said], bool]) -> None:
    while not condition(notify.said):
        await notify.wait_changed()


async def test_socket_hears_a_generation_out(folder: Path) -> None:
    notify = NotifySocket(folder / "1.sock")
    async with running(notify):
        assert (notify.ready, notify.detail) == (False, "it has not sent READY=1")
        send(notify, b"STATUS=loading\nEXTEND_TIMEOUT_USEC=5000000", b"WATCHDOG=1")
        await until(notify, lambda said: said.watchdog_at is not None)
        assert (notify.ready, notify.detail) == (False, "it has not sent READY=1 (status: loading)")
        assert 0 < notify.extended_until - anyio.current_time() <= 5
        send(notify, b"READY=1")
        await notify.wait_ready()
        send(notify, b"STOPPING=1\nSTATUS=")
        await until(notify, lambda said: said.stopping)
        assert (notify.ready, notify.detail) == (False, "it says that it is stopping")


async def test_all_who_wait_are_told_of_readiness(folder: Path) -> None:
    notify = NotifySocket(folder / "1.sock")
    told: list[bool] = []

    async def wait() -> None:
        await notify.wait_ready()
        told.append(notify.ready)

    async with running(notify):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            send(notify, b"STATUS=not yet")
            await until(notify, lambda said: said.status == "not yet")
            await anyio.wait_all_tasks_blocked()
            assert told == []
            send(notify, b"READY=1")
        assert told == [True, True, True]


async def test_overlong_datagram_is_passed_over(folder: Path) -> None:
    notify = NotifySocket(folder / "1.sock")
    async with running(notify):
        send(notify, b"STATUS=bad\n" + b"x" * 60_000, b"READY=1")
        await notify.wait_ready()
        assert notify.status == ""


async def test_more_datagrams_than_a_turn_takes_are_all_heard(folder: Path) -> None:
    notify = NotifySocket(folder / "1.sock")
    async with running(notify):
        program = f"for _ in range(500): ours.send(b'WATCHDOG=1')\n    {SAYS.strip().splitlines()[-1].strip()}"
        flood = SAYS.replace("ours.send(sys.argv[1].encode())", program)
        with subprocess.Popen([sys.executable, "-c", flood, "READY=1"], env=dict(notify.environ)) as popen:
            await notify.wait_ready()
        assert popen.returncode == 0


async def test_descriptor_sent_along_is_closed_as_a_barrier_asks(folder: Path) -> None:
    notify = NotifySocket(folder / "1.sock")
    async with running(notify):
        before = descriptors()
        read_end, write_end = os.pipe()
        send(notify, b"BARRIER=1", descriptor=write_end)
        os.close(write_end)
        await anyio.wait_readable(read_end)
        assert os.read(read_end, 1) == b""
        os.close(read_end)
        assert descriptors() == before


async def test_socket_is_its_owners_alone_and_goes_with_us(folder: Path) -> None:
    path = folder / "1.sock"
    path.write_text("left over")
    before = descriptors()
    nobody = pwd.getpwnam("nobody")
    owner = (nobody.pw_uid, nobody.pw_gid) if os.geteuid() == 0 else None
    mask = os.umask(0)
    try:
        async with running(NotifySocket(path, owner)):
            found = path.stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
            assert (found.st_uid, found.st_gid) == (owner or (os.geteuid(), os.getegid()))
    finally:
        os.umask(mask)
    assert not path.exists()
    assert descriptors() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_can_speak_once_the_socket_is_its_own(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    notify = NotifySocket(folder / "1.sock", (nobody.pw_uid, nobody.pw_gid))
    async with running(notify):
        # Perl is in every Debian, and open to all; the Python of a test run may lie in somebody's home.
        perl = "socket(S, AF_UNIX, SOCK_DGRAM, 0); send(S, 'READY=1', 0, pack_sockaddr_un($ENV{NOTIFY_SOCKET})) or die"
        speaker = ["/usr/bin/perl", "-MSocket", "-e", perl]
        with subprocess.Popen(speaker, env=dict(notify.environ), user="nobody", group=nobody.pw_gid, extra_groups=[]):
            await notify.wait_ready()


@pytest.mark.parametrize(
    ("name", "why"),
    [("x" * 120, "bytes and the kernel takes 107"), ("no/folder", "No such file or directory")],
)
async def test_socket_that_cannot_be_had_is_told_with_the_mend(folder: Path, name: str, why: str) -> None:
    before = descriptors()
    with pytest.raises(ConfigurationError) as raised:
        await NotifySocket(folder / name).run()
    assert str(raised.value).startswith(f"cannot listen on notify socket '{folder / name}': ")
    assert why in str(raised.value)
    assert str(raised.value).endswith("set SUPERVISOR_RUNTIME_DIR to another, short path")
    assert descriptors() == before


def spawn(ready: ReadyFd, code: str) -> subprocess.Popen[bytes]:
    """A child that has the pipe's write end, as the supervisor spawns it."""
    given = f"import os, sys; fd = int(os.environ['SUPERVISOR_READY_FD'])\n{code}\nsys.stdin.read()"
    argv = [sys.executable, "-c", given]
    popen = subprocess.Popen(argv, env=dict(ready.environ), pass_fds=ready.pass_fds, stdin=subprocess.PIPE)
    ready.spawned()
    return popen


async def test_newline_on_the_pipe_is_readiness_and_more_does_no_harm() -> None:
    ready = ReadyFd()
    before = descriptors()
    async with running(ready):
        with spawn(ready, "os.write(fd, b'soon'); os.write(fd, b'\\n'); os.write(fd, b'x' * 300_000)") as popen:
            assert not ready.ready
            await ready.wait_ready()
            assert ready.detail == "it wrote a newline to SUPERVISOR_READY_FD"
            await anyio.to_thread.run_sync(popen.communicate)
        assert popen.returncode == 0
    assert len(descriptors()) == len(before)


async def test_pipe_closed_without_a_newline_is_no_readiness() -> None:
    ready = ReadyFd()
    with anyio.fail_after(LIMIT_SECONDS):
        async with anyio.create_task_group() as group:
            await group.start(ready.run)
            popen = spawn(ready, "os.write(fd, b'almost'); os.close(fd)")
        # The group is left: the end was seen though the child lives on.
    assert popen.poll() is None
    popen.communicate()
    assert not ready.ready
    assert ready.detail == "it closed SUPERVISOR_READY_FD without a newline"


async def test_cancelled_pipe_leaves_nothing_open() -> None:
    ready = ReadyFd()
    before = descriptors()
    async with running(ready):
        assert ready.detail == "it wrote no newline to SUPERVISOR_READY_FD"
        assert len(ready.pass_fds) == 1
    assert descriptors() == before
    ready.spawned()


def test_both_ways_are_ways_of_readiness(tmp_path: Path) -> None:
    both: list[Readiness] = [NotifySocket(tmp_path / "1.sock"), ReadyFd()]
    assert [each.ready for each in both] == [False, False]
    assert [each.extended_until for each in both] == [0.0, 0.0]
