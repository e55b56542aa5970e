"""As PID 1: records a process, ends it, gives its very pid to a stranger, and says whether each was taken for ours."""

import subprocess
import sys
from pathlib import Path

from supervisor.process import procfs
from supervisor.process.leftovers import SpawnRecord, find_leftovers

PID = 500
LAST = Path("/proc/sys/kernel/ns_last_pid")


def sleeper() -> "subprocess.Popen[bytes]":
    """A process with the pid wanted."""
    try:
        LAST.write_text(str(PID - 1))
    except OSError as error:
        print(error)
        sys.exit(75)
    popen = subprocess.Popen(["sleep", "600"])
    assert popen.pid == PID
    return popen


first = sleeper()
stat = procfs.read_stat(PID)
assert stat is not None
record = SpawnRecord("app", PID, stat.start_ticks, procfs.boot_id(), "install/app/1", 15)
found = [bool(find_leftovers([record], "install"))]
first.kill()
first.wait()
while procfs.uptime_ticks() <= stat.start_ticks:
    pass  # within one tick of 10 ms the two could not be told apart, and nobody restarts a machine's pids that fast
second = sleeper()
found.append(bool(find_leftovers([record], "install")))
second.kill()
second.wait()
print(f"found {found[0]}, then {found[1]}")
