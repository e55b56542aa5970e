"""Which processes a child has become, and where they listen: the kernel's tables parsed, then real listeners."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from supervisor.process.listening import Listener, listeners_of, process_tree
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.process.sock_diag import parse_listening
from tests.process.children import python, wait_for

pytestmark = pytest.mark.anyio

HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "0" * 31 + "1 " in Path("/proc/net/if_inet6").read_text()
TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1 0 100 0 0 10 0
   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 333 1 0 100 0 0 10 0
   3: torn
"""
TABLE6 = """  sl  local_address                         remote_address                        st ...
   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 444 1
   1: 0000000000000000FFFF00000100007F:0BB9 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 555 1
"""
FAMILY = """
import os, subprocess, sys
wait = "import sys; sys.stdin.read()"
subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE)
# An orphan of our session that has lost its parent and our environment.
subprocess.run(["/bin/sh", "-c", "exec 3<&0; env -i sleep 1000 <&3 &"])
away = subprocess.Popen([sys.executable, "-c", wait], stdin=subprocess.PIPE, start_new_session=True, env={})
print(away.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the tables are of a little-endian machine")
def test_tables_of_the_kernel_are_read() -> None:
    assert parse_listening(TABLE) == {"111": ("127.0.0.1", 8080), "222": ("0.0.0.0", 80)}
    assert parse_listening(TABLE6) == {"444": ("::1", 3000), "555": ("::ffff:127.0.0.1", 3001)}
    assert parse_listening("") == {}


def test_listener_is_written_as_it_would_be_typed() -> None:
    assert str(Listener("127.0.0.1", 80)) == "127.0.0.1:80"
    assert str(Listener("::1", 80)) == "[::1]:80"


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.2"),
        pytest.param(
            socket.AF_INET6,
            "::1",
            marks=pytest.mark.skipif(not HAS_IPV6, reason="::1 is not there"),
        ),
    ],
)
def test_own_listener_is_found_with_its_address(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as listener:
        listener.bind((address, 0))
        port = listener.getsockname()[1]
        assert Listener(address, port, os.getpid()) not in (listeners_of([os.getpid()]) or ())
        listener.listen()
        assert Listener(address, port, os.getpid()) in (listeners_of([os.getpid()]) or ())


def test_nothing_is_known_of_processes_that_are_gone() -> None:
    with subprocess.Popen(["true"]) as popen:
        pass
    assert listeners_of([popen.pid]) == ()


def test_a_process_closed_to_us_makes_the_answer_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.listdir

    def listdir(path: str) -> list[str]:
        if path == "/proc/1/fd":
            raise PermissionError(path)
        return plain(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert listeners_of([1]) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = listeners_of([1, os.getpid()])
        assert found is not None
        assert listener.getsockname()[1] in {each.port for each in found}


async def test_tree_has_descendants_of_other_sessions_and_no_stranger(reaper: Reaper, ring: Ring) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(write_end), os.fdopen(read_end):
        child = reaper.spawn(python(FAMILY, stdin=read_end), ring)
        away = int(await wait_for(ring, str.isdigit))
        found = process_tree(child.pid, child.marker)
        assert {child.pid, away} < set(found)
        assert len(found) == 4
        assert os.getpid() not in found
        # Without its number those with the marker are left: the child, and the one that kept the environment.
        # The orphan loses it only when its `env -i` runs.
        with anyio.fail_after(10):
            while len(process_tree(0, child.marker)) != 2:
                await anyio.sleep(0.01)
        await child.kill()


async def test_tree_is_empty_once_all_are_gone(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(python("pass"), ring)
    with anyio.fail_after(15):
        await child.wait()
    assert process_tree(0, child.marker) == []
