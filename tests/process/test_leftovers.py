"""What a supervisor killed with -9 leaves: found by evidence, ended in order; strangers never touched."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from supervisor.process import procfs
from supervisor.process.leftovers import (
    MARKER_VARIABLE,
    Leftover,
    SpawnRecord,
    end_leftovers,
    find_leftovers,
    find_survivors,
)
from tests.process.children import is_gone
from tests.process.namespaces import program, run_as_pid1

INSTALL = f"install-{uuid.uuid4().hex}"  # leftovers are looked for on the whole machine, where this may run twice


@dataclasses.dataclass
class Dead:
    """What a killed supervisor left: its records, and the pids of its five processes."""

    records: list[SpawnRecord]
    pids: set[int]

    def pid(self, name: str) -> int:
        return next(record.pid for record in self.records if record.name == name)


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Dead]:
    log = tmp_path / "spawned"
    with subprocess.Popen(program("dying_supervisor", log, INSTALL), stdout=subprocess.PIPE, text=True) as popen:
        assert popen.stdout is not None
        pids = {int(word) for word in popen.stdout.readline().split()}
        popen.kill()
    assert len(pids) == 5
    try:
        yield Dead([SpawnRecord(**json.loads(line)) for line in log.read_text().splitlines()], pids)
    finally:
        for pid in pids:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the same name and arguments as one of ours, and another install's marker."""
    env = {**os.environ, MARKER_VARIABLE: f"{INSTALL}-too/plain/0123"}
    with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as popen:
        yield popen
        popen.kill()


def record_of(pid: int, **changes: object) -> SpawnRecord:
    stat = procfs.read_stat(pid)
    assert stat is not None
    true = SpawnRecord("plain", pid, stat.start_ticks, procfs.boot_id(), f"{INSTALL}/plain/0123", int(signal.SIGTERM))
    return dataclasses.replace(true, **changes)  # type: ignore[arg-type]


def found_pids(leftovers: list[Leftover]) -> set[int]:
    pids = {leftover.process.pid for leftover in leftovers}
    for leftover in leftovers:
        leftover.process.close()
    return pids


def test_children_and_their_daemons_are_found(dead: Dead) -> None:
    assert found_pids(find_leftovers(dead.records, INSTALL)) == dead.pids


def test_marker_alone_finds_all_that_show_it(dead: Dead) -> None:
    bare = dead.pid("bare")
    without_marker = {pid for pid in dead.pids if os.getsid(pid) == bare}
    assert len(without_marker) == 2
    assert found_pids(find_leftovers([], INSTALL)) == dead.pids - without_marker


def test_record_alone_finds_the_leaders_and_their_sessions(dead: Dead) -> None:
    leaders = {record.pid for record in dead.records}
    sessions = {pid for pid in dead.pids if os.getsid(pid) in leaders}
    assert len(sessions) == 4
    assert found_pids(find_leftovers(dead.records, "another-install")) == sessions


def test_another_install_finds_nothing(dead: Dead) -> None:
    assert find_leftovers([], "another-install") == []
    assert find_leftovers([], INSTALL[:-1]) == []


def test_leftovers_have_their_names(dead: Dead) -> None:
    leftovers = find_leftovers(dead.records, INSTALL)
    assert sorted(leftover.name for leftover in leftovers) == ["bare", "bare", "parent", "parent", "plain"]
    found_pids(leftovers)


def test_stranger_with_the_same_name_is_not_touched(dead: Dead, stranger: subprocess.Popen[bytes]) -> None:
    assert stranger.pid not in found_pids(find_leftovers(dead.records, INSTALL))


@pytest.mark.parametrize(
    ("changes", "found"),
    [({}, True), ({"start_ticks": 1}, False), ({"boot_id": "another boot"}, False)],
    ids=["true record", "pid used again", "another boot"],
)
def test_recycled_pid_is_not_taken_for_ours(
    stranger: subprocess.Popen[bytes], changes: dict[str, object], found: bool
) -> None:
    leftovers = find_leftovers([record_of(stranger.pid, **changes)], INSTALL)
    assert (stranger.pid in found_pids(leftovers)) is found


def test_whatever_we_descend_from_is_spared() -> None:
    # A shell opened by the app of a killed supervisor, in which the supervisor is started again.
    search = (
        "import os; from supervisor.process.leftovers import find_leftovers as f;"
        "print(sorted({'shell' if leftover.process.pid == os.getppid() else 'other' for leftover in f([], 'nested')}))"
    )
    shell = f'sleep 600 & "{sys.executable}" -c "{search}"; kill $!'
    env = {**os.environ, MARKER_VARIABLE: "nested/app/1"}
    done = subprocess.run(["/bin/sh", "-c", shell], env=env, capture_output=True, text=True, timeout=20)
    assert done.stdout == "['other']\n", done.stderr


@pytest.mark.anyio
async def test_leftovers_are_ended_in_order(dead: Dead) -> None:
    with anyio.fail_after(15):
        assert await end_leftovers(find_leftovers(dead.records, INSTALL), grace_seconds=600) == []
    assert all(is_gone(pid) for pid in dead.pids)


@pytest.mark.anyio
async def test_leftover_gets_its_own_stop_signal(stranger: subprocess.Popen[bytes]) -> None:
    leftovers = find_leftovers([record_of(stranger.pid, stop_signal=int(signal.SIGINT))], INSTALL)
    with anyio.fail_after(15):
        await end_leftovers(leftovers, grace_seconds=600)
    assert stranger.wait(5) == -signal.SIGINT


@pytest.mark.anyio
@pytest.mark.parametrize("stopped", [False, True])
async def test_leftover_that_ignores_its_stop_signal_is_killed(stopped: bool) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); print(flush=True)\nwhile True: signal.pause()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        if stopped:
            popen.send_signal(signal.SIGSTOP)
        with anyio.fail_after(15):
            assert await end_leftovers(find_leftovers([record_of(popen.pid)], INSTALL), grace_seconds=0.1) == []
        assert popen.wait(5) == -signal.SIGKILL


@pytest.mark.anyio
async def test_leftover_held_by_its_pidfd_is_not_confused_with_a_later_process() -> None:
    with subprocess.Popen(["sleep", "600"]) as popen:
        found = find_leftovers([record_of(popen.pid)], INSTALL)
        popen.kill()
    (leftover,) = found
    # The number is free for anybody now; the descriptor still means the one that is gone.
    assert not leftover.process.signal(signal.SIGKILL)
    leftover.process.close()


def test_survivors_are_those_of_the_session_or_with_the_marker(stranger: subprocess.Popen[bytes]) -> None:
    now = procfs.uptime_ticks()
    by_marker = find_survivors(f"{INSTALL}-too/plain/0123", 999_999, now)
    by_session = find_survivors("nobody", os.getsid(stranger.pid), now)
    assert [survivor.pid for survivor in by_marker] == [stranger.pid]
    # The leader itself is not a survivor of itself.
    assert by_session == []
    by_marker[0].close()


def test_later_process_with_the_leaders_session_number_is_a_stranger() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "sleep 600 & echo; wait"], stdout=-1, start_new_session=True) as popen:
        assert popen.stdout is not None
        popen.stdout.readline()
        stat = procfs.read_stat(popen.pid)
        assert stat is not None
        later = find_survivors("nobody", popen.pid, stat.start_ticks - 1)
        ours = find_survivors("nobody", popen.pid, procfs.uptime_ticks())
        os.killpg(popen.pid, signal.SIGKILL)
    assert (len(later), len(ours)) == (0, 1)
    ours[0].close()


@pytest.mark.namespaces
def test_recycled_pid_is_not_taken_for_ours_in_a_crowded_namespace() -> None:
    done = run_as_pid1(program("recycled_pid"))
    if done.returncode == 75:
        pytest.skip(f"cannot choose a pid in a namespace here: {done.stdout.strip()}")
    assert (done.stdout, done.stderr) == ("found True, then False\n", "")


LEADER = """
trap '[ -z "$2" ] || kill -KILL $follower; wait; exit 0' TERM
sh -c 'trap "echo told >>$1; exit" TERM; : >$1; while :; do sleep 0.05; done' sh "$1" &
follower=$!
while :; do wait; done
"""


async def reaped(popen: subprocess.Popen[bytes]) -> None:
    await anyio.to_thread.run_sync(popen.wait)


@pytest.mark.anyio
@pytest.mark.parametrize(("leads", "told"), [(True, ""), (False, "told\n")], ids=["leads", "group"])
async def test_what_a_leader_ends_in_its_turn_gets_no_signal_of_ours(tmp_path: Path, leads: bool, told: str) -> None:
    log = tmp_path / "log"
    ends_it = "yes" if leads else ""
    with subprocess.Popen(["sh", "-c", LEADER, "sh", log, ends_it], start_new_session=True) as popen:
        with anyio.fail_after(10):
            while not log.exists():
                await anyio.sleep(0.01)
        record = record_of(popen.pid, leads=leads)
        leftovers = find_leftovers([record], INSTALL)
        assert {leftover.leader for leftover in leftovers} == ({0, popen.pid} if leads else {0})
        async with anyio.create_task_group() as group:
            group.start_soon(reaped, popen)
            assert await end_leftovers(leftovers, grace_seconds=10, leader_seconds=10) == []
    assert log.read_text() == told
