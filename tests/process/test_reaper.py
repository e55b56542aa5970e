"""Spawning and reaping: what a child inherits, what fails cleanly, what happens on the way out."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sys

import anyio
import pytest

from supervisor.process import reaper as reaper_module
from supervisor.process.child import Child, Command, Identity, explain_spawn_error
from supervisor.process.leftovers import SpawnRecord
from supervisor.process.output import Line, Ring
from supervisor.process.reaper import Reaper
from tests.process.children import ENDS_ON_TERM, IGNORES_TERM, is_gone, python, shell, start, wait_for

pytestmark = pytest.mark.anyio


async def output_of(reaper: Reaper, command: Command, ring: Ring) -> list[str]:
    child = reaper.spawn(command, ring)
    with anyio.fail_after(15):
        assert (await child.wait()).clean, ring.tail(5)
    return [line.text for line in ring.tail(1000)]


# Ends


@pytest.mark.parametrize("code", [0, 1, 9, 127, 255])
async def test_exit_code_is_told(reaper: Reaper, ring: Ring, code: int) -> None:
    end = await reaper.spawn(shell(f"exit {code}"), ring).wait()
    assert (end.code, end.signal, end.status, end.clean) == (code, None, code, code == 0)
    assert str(end) == f"exited with {code}"


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (15, "SIGTERM"), (40, "signal 40")])
async def test_death_by_signal_is_no_exit(reaper: Reaper, ring: Ring, number: int, name: str) -> None:
    end = await reaper.spawn(shell(f"kill -{number} $$"), ring).wait()
    assert (end.code, end.signal, end.status, end.clean) == (None, number, 128 + number, False)
    assert str(end) == f"killed by {name}"


async def test_many_may_wait_and_one_may_be_cancelled(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(ENDS_ON_TERM), ring)
    ends: list[int] = []

    async def wait() -> None:
        ends.append((await child.wait()).status)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        with anyio.move_on_after(0):
            await child.wait()
        child.signal(signal.SIGTERM)
    assert ends == [143] * 3


async def test_everything_written_before_the_end_is_there_when_the_end_is_known(reaper: Reaper) -> None:
    # Less than a pipe holds, so it can all be written and the process be gone before anybody reads.
    write = "import os; os.write(2, b'err\\n' * 5000); os.write(1, b'out\\n' * 5000)"
    for _ in range(5):
        ring = Ring("test", max_bytes=10_000_000)
        await reaper.spawn(python(write), ring).wait()
        assert ring.number == 10_000


async def test_output_of_what_a_leader_left_still_arrives(reaper: Reaper, ring: Ring) -> None:
    reading, writing = os.pipe()
    child = reaper.spawn(shell("exec 3<&0; (read go <&3; echo late) & exit 0", stdin=reading), ring)
    os.close(reading)
    await child.wait()
    os.write(writing, b"go\n")
    os.close(writing)
    await wait_for(ring, lambda text: text == "late")
    await child.kill()


# What a child inherits


def _sets(status: list[str]) -> dict[str, set[int]]:
    fields = dict(line.split(":", 1) for line in status)
    masks = {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn")}
    return {name: {bit + 1 for bit in range(64) if mask >> bit & 1} for name, mask in masks.items()}


async def test_child_gets_the_entry_mask_and_ignored_signals_back(ring: Ring) -> None:
    reaper = Reaper(entry_mask=frozenset({10, 36}), entry_ignored=frozenset({1, 13, 25, 40}), linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        command = Command("cat", ["cat", "/proc/self/status"], dict(os.environ))
        status = await output_of(reaper, command, ring)
        # PIPE and XFSZ are what Python ignores, whoever started it.
        assert _sets(status) == {"SigBlk": {10, 36}, "SigIgn": {1, 40}}
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
        group.cancel_scope.cancel()


async def test_child_has_nothing_blocked_or_ignored_by_default(reaper: Reaper, ring: Ring) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        status = await output_of(reaper, Command("cat", ["cat", "/proc/self/status"], dict(os.environ)), ring)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
    assert _sets(status) == {"SigBlk": set(), "SigIgn": set()}


async def test_missing_program_is_an_error_with_ignored_signals_too(ring: Ring) -> None:
    reaper = Reaper(entry_ignored=frozenset({1}), linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        with pytest.raises(FileNotFoundError):
            reaper.spawn(Command("app", ["no-such-program"], {"PATH": "/bin"}), ring)
        group.cancel_scope.cancel()


async def test_child_gets_a_session_its_environment_and_the_descriptors_named(reaper: Reaper, ring: Ring) -> None:
    reading, writing = os.pipe()
    code = (
        "import os; print(os.getsid(0) == os.getpid()); print(sorted(os.listdir('/proc/self/fd'))); "
        f"os.write({writing}, b'passed'); print(os.environ['A'], os.environ['SUPERVISOR_SPAWN'], os.read(0, 9))"
    )
    child = reaper.spawn(python(code, env={"A": "1"}, pass_fds=(writing,)), ring)
    assert (await child.wait()).clean
    lines = [line.text for line in ring.tail(9)]
    assert lines[0] == "True"
    assert lines[1] == str(sorted(["0", "1", "2", "3" if writing != 3 else "4", str(writing)]))
    assert lines[2] == f"1 {child.marker} b''"
    assert os.read(reading, 9) == b"passed"
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become another user")
async def test_child_runs_as_the_user_asked_for(reaper: Reaper, ring: Ring) -> None:
    command = Command("id", ["/bin/sh", "-c", "id -u; id -g; id -G; umask"], {"PATH": "/usr/bin:/bin"}, cwd="/")
    command = Command(**{**command.__dict__, "identity": Identity(65534, 65533, (65532,)), "umask": 0o027})
    assert await output_of(reaper, command, ring) == ["65534", "65533", "65533 65532", "0027"]


# What fails


@pytest.mark.parametrize(
    ("argv", "options", "words"),
    [
        (["no-such-program"], {}, "no program 'no-such-program' on the PATH"),
        (["/etc/passwd"], {}, "is not executable"),
        (["true"], {"cwd": "/no/such/folder"}, "its folder '/no/such/folder' does not exist"),
    ],
)
async def test_failing_spawn_is_explained_and_leaves_nothing(
    reaper: Reaper, ring: Ring, argv: list[str], options: dict[str, str], words: str
) -> None:
    command = Command("app", argv, dict(os.environ), **options)  # type: ignore[arg-type]
    with pytest.raises(OSError) as failed:
        reaper.spawn(command, ring)
    assert words in explain_spawn_error(command, failed.value)
    assert reaper.children == []
    assert (await reaper.spawn(shell("exit 4"), ring).wait()).code == 4
    assert reaper.orphans_reaped == 0


async def test_child_without_a_pidfd_is_supervised_all_the_same(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    child = await start(reaper, python(ENDS_ON_TERM), ring)
    assert child.signal(0)
    with anyio.fail_after(15):
        assert (await child.stop(grace_seconds=10)).signal == signal.SIGTERM
    assert not child.signal(0)


async def test_end_is_known_although_nothing_can_be_opened(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(reaper, python(ENDS_ON_TERM), ring)

    def refuse(path: str) -> list[str]:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(os, "listdir", refuse)
    child.signal(signal.SIGTERM)
    with anyio.fail_after(15):
        assert (await child.wait()).signal == signal.SIGTERM
    monkeypatch.undo()


class FullDisk:
    def spawned(self, record: SpawnRecord) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    def reaped(self, pid: int) -> None:
        pass


async def test_child_that_cannot_be_written_down_is_killed(ring: Ring) -> None:
    reaper = Reaper(spawn_log=FullDisk(), linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        with pytest.raises(OSError, match="no space left"):
            reaper.spawn(python(IGNORES_TERM), ring)
        with anyio.fail_after(5):
            await reaper.wait_empty()
        group.cancel_scope.cancel()


class Log:
    def __init__(self) -> None:
        self.records: dict[int, SpawnRecord] = {}

    def spawned(self, record: SpawnRecord) -> None:
        self.records[record.pid] = record

    def reaped(self, pid: int) -> None:
        del self.records[pid]


async def test_spawns_are_written_down_until_they_are_reaped(ring: Ring) -> None:
    log = Log()
    reaper = Reaper(spawn_log=log, install_id="install", linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        child = await start(reaper, python(ENDS_ON_TERM, stop_signal=signal.SIGINT), ring)
        record = log.records[child.pid]
        assert (record.name, record.start_ticks, record.stop_signal) == ("app", child.start_ticks, signal.SIGINT)
        assert record.marker == child.marker
        assert child.marker.startswith("install/app/")
        await child.kill()
        assert log.records == {}
        group.cancel_scope.cancel()


# The way out


async def test_several_may_wait_for_the_last_child(reaper: Reaper, ring: Ring) -> None:
    child = await start(reaper, python(ENDS_ON_TERM), ring)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(reaper.wait_empty)
            group.start_soon(reaper.wait_empty)
            await anyio.wait_all_tasks_blocked()
            child.signal(signal.SIGTERM)
        await reaper.wait_empty()


async def test_cancelled_reaper_kills_and_reaps_what_was_forgotten(ring: Ring) -> None:
    reaper = Reaper(linger_seconds=0)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        child = await start(reaper, python(IGNORES_TERM), ring)
        group.cancel_scope.cancel()
    assert child.exit is not None
    assert child.exit.signal == signal.SIGKILL
    with anyio.fail_after(1):
        await child.wait()


async def test_orderly_stop_succeeds_although_the_reaper_is_cancelled_first(ring: Ring) -> None:
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); signal.pause()"
    reaper = Reaper(linger_seconds=20)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        child = await start(reaper, python(code), ring)

        async def keep() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True), anyio.fail_after(15):
                    await child.stop(grace_seconds=10)

        group.start_soon(keep)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert child.exit is not None
    assert child.exit.code == 7


async def test_reaper_that_crashed_still_ends_its_children() -> None:
    def broken(line: Line) -> None:
        raise ZeroDivisionError

    reaper, children = Reaper(linger_seconds=20), list[Child]()

    async def crash() -> None:
        with anyio.fail_after(15):
            async with anyio.create_task_group() as group:
                await group.start(reaper.run)
                for _ in range(2):
                    children.append(reaper.spawn(python(IGNORES_TERM), Ring("test", on_line=broken)))
                await anyio.sleep_forever()

    with pytest.raises(ExceptionGroup):
        await crash()
    assert [child.exit.signal if child.exit else None for child in children] == [signal.SIGKILL] * 2


async def test_nothing_is_spawned_without_a_running_reaper(ring: Ring) -> None:
    reaper = Reaper()
    with pytest.raises(AssertionError):
        reaper.spawn(shell("exit"), ring)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        group.cancel_scope.cancel()
    with pytest.raises(AssertionError):
        reaper.spawn(shell("exit"), ring)


async def test_end_all_needs_no_running_reaper(ring: Ring) -> None:
    reaper = Reaper(linger_seconds=0)
    # Deaf to TERM, and no fork: from Python 3.12 on that is a warning where there is a thread.
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {}, setsigmask=[signal.SIGTERM])
    with anyio.fail_after(5):
        await reaper.end_all()
    assert is_gone(pid)
    assert reaper.orphans_reaped == 1


async def test_end_all_kills_whatever_a_child_left(reaper: Reaper, ring: Ring, subreaper: None) -> None:
    # Two levels, each in a session of its own and without the marker: only adoption leads to them.
    code = (
        "import os, signal\n"
        "for _ in range(2):\n"
        "    if os.fork(): signal.pause()\n"
        "    os.setsid()\n"
        "os.execve('/bin/sh', ['sh', '-c', 'echo $$; exec sleep 600'], {})\n"
    )
    child = reaper.spawn(python(code), ring)
    pid = int(await wait_for(ring, str.isdigit))
    with anyio.fail_after(5):
        await reaper.end_all()
    assert child.exit is not None
    assert is_gone(pid)


async def test_end_all_never_signals_a_group_or_everybody(
    reaper: Reaper, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = await start(reaper, python(IGNORES_TERM), ring)
    signalled: list[int] = []
    kill, killpg = os.kill, os.killpg

    def watch(pid: int, number: int) -> None:
        signalled.append(pid)
        (killpg if pid == child.pid else kill)(pid, number)

    monkeypatch.setattr(os, "kill", watch)
    monkeypatch.setattr(os, "killpg", watch)
    await reaper.end_all()
    assert set(signalled) == {child.pid}
    await reaper.end_all()
    assert set(signalled) == {child.pid}


async def test_reaping_by_hand_does_no_harm(reaper: Reaper, ring: Ring) -> None:
    child: Child = reaper.spawn(shell("exit 5"), ring)
    with anyio.fail_after(10):
        while child.alive:
            reaper.reap()
            await anyio.lowlevel.checkpoint()
    assert (await child.wait()).code == 5


async def test_lifecycles_leak_no_descriptor(reaper: Reaper) -> None:
    async def lifecycle() -> None:
        ring = Ring("test")
        child = reaper.spawn(shell("sleep 600 & echo up; exit 0"), ring)
        await child.wait()
        # Left to itself on purpose: `run_to_end` does this with its command's leftovers.
        for survivor in child.survivors:
            os.kill(survivor.pid, signal.SIGKILL)

    await lifecycle()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await lifecycle()
    gc.collect()
    with anyio.fail_after(10):
        while len(os.listdir("/proc/self/fd")) > before + 4:
            await anyio.sleep(0.01)


def test_descriptors_left_is_a_number_of_some_use() -> None:
    assert 0 < reaper_module.descriptors_left() < 10**9


def test_spawn_errors_name_what_can_be_done() -> None:
    command = Command("app", [sys.executable], {})
    other = Command("app", [sys.executable], {}, identity=Identity(61234, 61234))
    assert "not executable by uid 61234; check" in explain_spawn_error(other, OSError(errno.EACCES, ""))
    for number in (errno.EAGAIN, errno.EPERM, errno.ENOEXEC, errno.E2BIG):
        assert explain_spawn_error(command, OSError(number, "")).startswith("cannot start 'app': ")
