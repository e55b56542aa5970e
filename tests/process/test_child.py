"""Stopping: the grace, what a leader leaves, cancellation, and whom a signal reaches."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from supervisor.core.errors import SupervisorError
from supervisor.process import child as child_module
from supervisor.process.child import KillMode
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from tests.process.children import ENDS_ON_TERM, IGNORES_TERM, is_gone, python, shell, start, wait_for

pytestmark = pytest.mark.anyio

# `stop` with this grace has to leave long before it, or the limit around it fails the test.
LONG_SECONDS = 600.0

# A leader with two more: a worker in its group, and a daemon in a session of its own; each says its pid when set up.
# (One write a line, as several processes share the pipe.)
FAMILY = """
import os, signal, sys
def settle():
    {settle}
    os.write(1, b"%d\\n" % os.getpid())
    while True: signal.pause()
if os.fork() == 0: settle()
if os.fork() == 0:
    os.setsid()
    if os.fork(): os._exit(0)
    settle()
settle()
"""


async def pids_of(ring: Ring, count: int) -> list[int]:
    with anyio.fail_after(15):
        while ring.number < count:
            await ring.wait_newer(ring.number)
    return [int(line.text) for line in ring.tail(count)]


async def test_stop_returns_as_soon_as_it_has_ended(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(ENDS_ON_TERM), ring)
    with anyio.fail_after(15):
        end = await child.stop(grace_seconds=LONG_SECONDS)
    assert end.signal == signal.SIGTERM


async def test_stop_sends_the_stop_signal_of_the_command(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(IGNORES_TERM, stop_signal=signal.SIGQUIT), ring)
    with anyio.fail_after(15):
        assert (await child.stop(grace_seconds=LONG_SECONDS)).signal == signal.SIGQUIT


async def test_child_that_ignores_its_stop_signal_is_killed_at_its_grace(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(IGNORES_TERM), ring)
    began = anyio.current_time()
    with anyio.fail_after(15):
        end = await child.stop(grace_seconds=0.2)
    assert end.signal == signal.SIGKILL
    assert anyio.current_time() - began >= 0.2


async def test_child_that_ignores_its_stop_signal_lives_without_a_stop(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(IGNORES_TERM), ring)
    child.signal_group(signal.SIGTERM)
    with anyio.move_on_after(0.3):
        await child.wait()
    assert child.alive


@pytest.mark.parametrize("settle", ["pass", "signal.signal(15, signal.SIG_IGN)"], ids=["polite", "stubborn"])
@pytest.mark.parametrize("mode", KillMode)
async def test_stop_ends_workers_and_daemons_too(reaper: Reaper, ring: Ring, settle: str, mode: KillMode) -> None:
    child = reaper.spawn(python(FAMILY.format(settle=settle), kill_mode=mode), ring)
    pids = await pids_of(ring, 3)
    with anyio.fail_after(15):
        await child.stop(grace_seconds=LONG_SECONDS if settle == "pass" else 0.2)
    assert all(is_gone(pid) for pid in pids)
    assert child.survivors == []


async def test_workers_and_daemons_outlive_a_leader_that_just_ends(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(python(FAMILY.format(settle="pass")), ring)
    pids = await pids_of(ring, 3)
    os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    assert {survivor.pid for survivor in child.survivors} == set(pids) - {child.pid}
    assert not any(is_gone(survivor.pid) for survivor in child.survivors)
    with anyio.fail_after(15):
        await child.stop(grace_seconds=LONG_SECONDS)
    assert all(is_gone(pid) for pid in pids)


async def test_kill_ends_what_survivors_start_meanwhile(reaper: Reaper, ring: Ring) -> None:
    # A relay: each link forks the next (marked, in a session of its own) and ends 50 ms later, TERM or not.
    relay = """
import os, signal, time
signal.signal(15, signal.SIG_IGN)
for link in range(10_000):
    if os.fork(): time.sleep(0.02); os._exit(0)
    os.setsid()
    os.write(1, b"%d\\n" % os.getpid())
"""
    child = reaper.spawn(python(relay), ring)
    await child.wait()
    await pids_of(ring, 3)
    with anyio.fail_after(15):
        await child.kill()
        assert all(is_gone(int(line.text)) for line in ring.tail(1000))
        number = ring.number
        await anyio.sleep(0.1)  # a missed link would have made others by now
    assert ring.number == number


async def test_stopped_process_can_be_stopped_for_good(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(python(FAMILY.format(settle="pass")), ring)
    pids = await pids_of(ring, 3)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    with anyio.fail_after(15):
        end = await child.stop(grace_seconds=LONG_SECONDS)
    assert end.signal == signal.SIGTERM
    assert all(is_gone(pid) for pid in pids)


async def test_group_members_get_the_stop_signal_once(reaper: Reaper, ring: Ring) -> None:
    # The leader ends at once; its worker takes a moment, and a second signal would mean "at once" to many programs.
    code = """
import os, signal, time
if os.fork():
    signal.pause()
def stop(*_):
    print("asked", flush=True)
    time.sleep(0.2)
    raise SystemExit
signal.signal(15, stop)
print("up", flush=True)
while True: signal.pause()
"""
    child = await start(reaper, python(code), ring)
    with anyio.fail_after(15):
        await child.stop(grace_seconds=LONG_SECONDS)
    await wait_for(ring, lambda text: text == "asked")
    assert [line.text for line in ring.tail(9)] == ["up", "asked"]


@pytest.mark.parametrize(("mode", "words"), [(KillMode.GROUP, ["worker"]), (KillMode.PROCESS, [])])
async def test_kill_mode_says_whom_the_stop_signal_reaches(
    reaper: Reaper, ring: Ring, mode: KillMode, words: list[str]
) -> None:
    # The leader waits for its worker, which ends by itself where it is not signalled. The leader's handler is there
    # before the fork, as the worker's word is what the signal waits for.
    code = """
import os, signal
def told(*_):
    print("worker", flush=True)
    os._exit(0)
def stop(*_):
    os.close(writing) if MODE == "process" else None
    os.wait()
    os._exit(0)
reading, writing = os.pipe()
signal.signal(15, stop)
if os.fork() == 0:
    os.close(writing)
    signal.signal(15, told)
    print("up", flush=True)
    os.read(reading, 1)
    os._exit(0)
while True: signal.pause()
""".replace("MODE", repr(mode.value))
    child = await start(reaper, python(code, kill_mode=mode), ring)
    with anyio.fail_after(15):
        assert (await child.stop(grace_seconds=LONG_SECONDS)).clean
    assert [line.text for line in ring.tail(9)] == ["up", *words]


async def test_cancelled_stop_kills(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(python(FAMILY.format(settle="signal.signal(15, signal.SIG_IGN)")), ring)
    pids = await pids_of(ring, 3)
    with anyio.move_on_after(0.1) as scope:
        await child.stop(grace_seconds=LONG_SECONDS)
    assert scope.cancelled_caught
    assert child.exit is not None
    assert child.exit.signal == signal.SIGKILL
    assert all(is_gone(pid) for pid in pids)


async def test_two_stops_at_once_both_succeed(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(python(FAMILY.format(settle="pass")), ring)
    pids = await pids_of(ring, 3)
    os.kill(child.pid, signal.SIGKILL)
    with anyio.fail_after(15):
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(lambda: child.stop(grace_seconds=LONG_SECONDS))
    assert all(is_gone(pid) for pid in pids)


async def test_stop_of_an_ended_child_gives_its_exit(reaper: Reaper, ring: Ring) -> None:
    child = reaper.spawn(shell("exit 6"), ring)
    await child.wait()
    assert (await child.stop(grace_seconds=LONG_SECONDS)).code == 6
    await child.kill()


async def test_child_that_nothing_ends_is_an_error_that_names_it(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(reaper, python(IGNORES_TERM), ring)
    monkeypatch.setattr(child_module, "FINAL_SECONDS", 0.1)
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    with pytest.raises(SupervisorError, match=rf"cannot end 'app' \(pid {child.pid}\)"):
        await child.stop(grace_seconds=0.1)
    monkeypatch.undo()
    await child.kill()


async def test_nobody_is_signalled_once_a_child_is_reaped(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = reaper.spawn(shell("exit 0"), ring)
    await child.wait()

    def refuse(*arguments: object) -> None:
        raise AssertionError(f"signalled {arguments}")

    for name in ("kill", "killpg"):
        monkeypatch.setattr(os, name, refuse)
    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    assert not child.signal(signal.SIGTERM)
    assert not child.signal_group(signal.SIGTERM)
    await child.kill()


async def test_process_of_another_user_is_reported_as_not_signalled(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(reaper, python(ENDS_ON_TERM), ring)

    def refuse(*arguments: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        patch.setattr(signal, "pidfd_send_signal", refuse)
        assert not child.signal(signal.SIGTERM)
        assert not child.signal_group(signal.SIGTERM)
    await child.kill()
