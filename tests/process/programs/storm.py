"""As PID 1: children with known exit codes amid a storm of orphans, then a count of what went wrong, as JSON.

`storm.py GUARD CHILDREN ORPHANS`; GUARD `reaper` is ours, the others are what happens without it: `none` reaps nothing,
`dropped` waits for everybody but lets go of the Popen objects.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import anyio

from supervisor.process import procfs
from supervisor.process.child import Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

ORPHANS = [sys.executable, str(Path(__file__).with_name("orphans.py"))]
SHELL = ["/bin/sh", "-c", 'exit "$0"']


def zombies() -> int:
    """How many processes are dead and unreaped."""
    stats = (procfs.read_stat(pid) for pid in procfs.pids())
    return sum(1 for stat in stats if stat is not None and stat.state == "Z")


async def with_reaper(children: int, orphans: int) -> dict[str, int]:
    """What is to be proved."""
    reaper, ring, env = Reaper(), Ring("storm"), dict(os.environ)
    wrong = 0
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        storm = reaper.spawn(Command("orphans", [*ORPHANS, str(orphans)], env), ring)
        for first in range(0, children, 50):
            codes = [number % 256 for number in range(first, min(first + 50, children))]
            spawned = [reaper.spawn(Command("child", [*SHELL, str(code)], env), ring) for code in codes]
            for code, child in zip(codes, spawned, strict=True):
                wrong += (await child.wait()).code != code
        assert (await storm.wait()).clean
        while reaper.orphans_reaped < orphans:
            await anyio.sleep(0.01)
        result = {"wrong": wrong, "zombies": zombies(), "orphans": reaper.orphans_reaped}
        group.cancel_scope.cancel()
    return result


def without_reaper(orphans: int) -> dict[str, int]:
    """The control: nobody waits for the orphans."""
    subprocess.run([*ORPHANS, str(orphans)], check=True, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 10
    while zombies() < orphans and time.monotonic() < end:
        time.sleep(0.01)
    return {"wrong": 0, "zombies": zombies(), "orphans": 0}


def with_dropped_objects(children: int) -> dict[str, int]:
    """The control: the destructor of Popen takes the status, so the wait for all never sees it."""
    wanted: dict[int, int] = {}
    wrong = 0
    for number in range(children):
        popen = subprocess.Popen([*SHELL, str(number % 256)])
        wanted[popen.pid] = number % 256
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        del popen
    while True:
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            break
        wrong += os.waitstatus_to_exitcode(status) != wanted.pop(pid)
    return {"wrong": wrong + len(wanted), "zombies": zombies(), "orphans": 0}


guard, children_count, orphans_count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
match guard:
    case "reaper":
        outcome = anyio.run(with_reaper, children_count, orphans_count)
    case "none":
        outcome = without_reaper(orphans_count)
    case _:
        sys.modules["warnings"].simplefilter("ignore", ResourceWarning)
        outcome = with_dropped_objects(children_count)
print(json.dumps(outcome))
