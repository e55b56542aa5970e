"""`orphans.py COUNT [count]`: leaves COUNT orphans that end all at once, and says `left` when all are on their own.

With `count` it then waits until all are dead and says how many of them nobody reaped within 2 s.
"""

import os
import sys
import time

BATCH = 500


def leave(count: int) -> None:
    """A fork that makes `count` processes and ends; they follow when the pipe it held is closed."""
    maker = os.fork()
    if maker:
        os.waitpid(maker, 0)
        return
    reading, writing = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(9)
    os._exit(0)


def orphans_of_pid_1() -> int:
    """Processes whose parent is PID 1, ourselves aside, dead or alive."""
    with open("/proc/1/task/1/children") as listing:
        return len(set(listing.read().split()) - {str(os.getpid())})


left = int(sys.argv[1])
while left:
    batch = min(BATCH, left)
    leave(batch)
    left -= batch
print("left", flush=True)
if len(sys.argv) > 2:
    end = time.monotonic() + 2
    while (unreaped := orphans_of_pid_1()) and time.monotonic() < end:
        time.sleep(0.01)
    print(unreaped, "unreaped", flush=True)
