"""HAProxy as a process: its user, its API, its end, and what nobody notices of that."""

from __future__ import annotations

import operator
import os
import signal
import socket
import stat
from dataclasses import replace
from functools import partial
from pathlib import Path

import anyio
import pytest

from supervisor.app.front.haproxy.process import HAProxy, HAProxyOptions, affordable, unprivileged
from supervisor.app.front.haproxy.runtime import Runtime
from supervisor.app.front.model import FrontError, Place
from supervisor.core.errors import ConfigurationError
from supervisor.core.events import Event, Warned
from supervisor.process.output import Ring
from supervisor.process.procfs import port_owners, read_stat
from tests.app.front.haproxy_rig import Rig, entered_folder, open_rig, running_reaper, until
from tests.app.front.http_app import Client, ask
from tests.app.front.test_haproxy_switch import Load

pytestmark = pytest.mark.anyio


def kill(rig: Rig) -> None:
    assert rig.haproxy.pid is not None
    os.kill(rig.haproxy.pid, signal.SIGKILL)


async def test_the_runtime_socket_is_ours_alone_and_haproxy_is_no_root() -> None:
    async with open_rig() as rig:
        found = rig.haproxy.socket_path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.geteuid())
        status = Path(f"/proc/{rig.haproxy.pid}/status").read_text()
        uids = next(line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
        assert "0" not in uids
        file = rig.folder / "haproxy" / "haproxy.cfg"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not rig.haproxy.socket_path.exists()


async def test_a_kill_refuses_nobody_and_the_next_one_serves_the_same_generation() -> None:
    """Some connections are made while there is surely no HAProxy: in the step that saw its end."""
    between: list[socket.socket] = []
    async with open_rig() as rig, rig.generation("old"), rig.generation("new") as (place, _):

        def connect(event: Event) -> None:
            assert isinstance(event, Warned)
            between.extend(socket.create_connection(("127.0.0.1", rig.port), timeout=5) for _ in range(20))

        rig.bus.subscribe(connect)
        await rig.front.switch(place)
        async with anyio.create_task_group() as group:
            load = Load(rig.port)
            for _ in range(4):
                group.start_soon(load.new_connections)
            await load.until_count(100)
            kill(rig)
            await load.until_count(200)
            load.stop()
        # What was in flight is lost: at most one a client; no connection was refused.
        assert len(load.failed) <= 4
        assert not [error for error in load.failed if "Refused" in error]
        assert set(load.answered) == {"new"}
        assert len(between) == 20
        for connection in between:
            with connection:
                await anyio.to_thread.run_sync(connection.sendall, b"GET / HTTP/1.1\r\nHost: app.example\r\n\r\n")
                assert (await anyio.to_thread.run_sync(connection.recv, 4000)).startswith(b"HTTP/1.1 200")
        [event] = rig.events
        assert isinstance(event, Warned)
        assert "killed by SIGKILL" in event.message


async def test_a_switch_while_haproxy_is_started_again_reaches_the_new_one() -> None:
    async with open_rig() as rig, rig.generation("old") as (old, _), rig.generation("new") as (new, _):
        await rig.front.switch(old)
        for number, place in enumerate((new, old, new), start=2):
            kill(rig)
            await switched(rig, place)
            assert await until(partial(started, rig), partial(operator.le, number)) == number
            assert (await ask(rig.port)).app == ("new" if place is new else "old")


async def switched(rig: Rig, place: Place) -> None:
    """A switch that met the very end of the old one is told to have failed; then it is asked for again."""
    try:
        await rig.front.switch(place)
    except FrontError:
        await rig.front.switch(place)


async def started(rig: Rig) -> int:
    return rig.haproxy.starts


async def test_haproxy_ends_with_its_run_and_the_public_sockets_stay_ours() -> None:
    async with open_rig() as rig:
        port, pid = rig.port, rig.haproxy.pid
        copies = [listener.dup() for listener in rig.listeners]
        assert set(port_owners(port) or []) == {os.getpid(), pid}
    assert rig.haproxy.pid is None
    assert port_owners(port) == [os.getpid()]
    for copy in copies:
        copy.close()


async def test_a_refused_configuration_says_what_haproxy_said() -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with open_rig(trusted=("no network",)):
            pass
    [error] = leaves(caught.value)
    assert isinstance(error, ConfigurationError)
    assert "no network" in str(error) or "'no'" in str(error)


async def test_a_haproxy_that_is_not_there_is_told_so() -> None:
    with entered_folder() as folder:
        async with running_reaper() as reaper:

            async def missing(command: object) -> tuple[int, str]:
                return 127, "no such program"

            options = HAProxyOptions(folder=folder / "haproxy", identity=unprivileged(), binary="/nowhere/haproxy")
            ring = Ring("haproxy")
            made = HAProxy([], options=options, reaper=reaper, ring=ring, run=missing, publish=print)
            with pytest.raises(ConfigurationError, match="no such program"):
                await made.run()

            async def fine(command: object) -> tuple[int, str]:
                return 0, ""

            made = HAProxy([], options=options, reaper=reaper, ring=ring, run=fine, publish=print)
            with pytest.raises(FrontError, match="no program '/nowhere/haproxy'"):
                await made.run()
            options = replace(options, binary="/bin/false")
            made = HAProxy([], options=options, reaper=reaper, ring=ring, run=fine, publish=print)
            with pytest.raises(FrontError, match="exited with 1"):
                await made.run()


def leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in leaves(each)]
    return [error]


async def test_a_haproxy_that_does_not_answer_is_a_front_error_in_time() -> None:
    async with open_rig() as rig:
        assert rig.haproxy.pid is not None
        os.kill(rig.haproxy.pid, signal.SIGSTOP)
        await until(partial(state, rig.haproxy.pid), lambda found: found == "T")
        with pytest.raises(FrontError, match="no answer within"):
            await Runtime(rig.haproxy.socket_path, limit_seconds=0.1).ask("show info")
        os.kill(rig.haproxy.pid, signal.SIGCONT)
        assert "Name: HAProxy" in await rig.haproxy.runtime.ask("show info")


async def state(pid: int) -> str:
    found = read_stat(pid)
    return found.state if found is not None else "gone"


async def test_a_runtime_socket_that_is_not_there_is_a_front_error(tmp_path: Path) -> None:
    with pytest.raises(FrontError, match="cannot command HAProxy"):
        await Runtime(tmp_path / "none.sock").ask("show info")


@pytest.mark.parametrize(
    ("wanted", "descriptors", "given"), [(4096, 1_000_000, 4096), (4096, 1024, 412), (4096, 64, 100), (50, 1024, 50)]
)
def test_connections_are_as_many_as_the_descriptors_allow(wanted: int, descriptors: int, given: int) -> None:
    assert affordable(wanted, descriptors) == given


async def test_haproxy_is_silent_about_requests() -> None:
    async with open_rig() as rig, rig.generation() as (place, _):
        await rig.front.switch(place)
        said = rig.ring.number
        async with Client(rig.port) as client:
            for _ in range(5):
                await client.ask()
        assert rig.ring.number == said
