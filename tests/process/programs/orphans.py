"""`orphans.py COUNT`: leaves COUNT orphans that end all at once, and says `left` when all of them are on their own."""

import os
import sys

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


left = int(sys.argv[1])
while left:
    batch = min(BATCH, left)
    leave(batch)
    left -= batch
print("left", flush=True)
if len(sys.argv) > 2:
    sys.stdin.read()
