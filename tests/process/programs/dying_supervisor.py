"""`dying_supervisor.py LOG INSTALL`: spawns children as a supervisor does, writes its spawn log, waits to be killed.

Children: `plain`; `parent`, which has a daemon in a session of its own; `bare`, which has a worker, and the environment
of both shows no marker.
"""

import json
import os
import sys
from dataclasses import asdict

import anyio

from supervisor.process.child import Command
from supervisor.process.leftovers import SpawnRecord
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

DAEMON = """
import os, signal
if os.fork() == 0: os.setsid()
os.write(1, b"%d\\n" % os.getpid())
while True: signal.pause()
"""
BARE = 'exec env -i /bin/sh -c "sleep 600 & echo $$; echo \\$!; wait"'


class Log:
    """Appends records to a file."""

    def spawned(self, record: SpawnRecord) -> None:
        with open(sys.argv[1], "a") as file:
            file.write(json.dumps(asdict(record)) + "\n")

    def reaped(self, pid: int) -> None:
        raise AssertionError("nobody was to end")


async def main() -> None:
    """Never returns."""
    reaper, ring, env = Reaper(install_id=sys.argv[2], spawn_log=Log()), Ring("children"), dict(os.environ)
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        for name, argv in (
            ("plain", ["/bin/sh", "-c", "echo $$; exec sleep 600"]),
            ("parent", [sys.executable, "-c", DAEMON]),
            ("bare", ["/bin/sh", "-c", BARE]),
        ):
            reaper.spawn(Command(name, argv, env), ring)
        while ring.number < 5:
            await ring.wait_newer(ring.number)
        print(*(line.text for line in ring.tail(5)), flush=True)
        await anyio.sleep_forever()


anyio.run(main)
