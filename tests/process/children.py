"""Commands for the tests: small Python programs whose first line of output says that they are set up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import anyio

from supervisor.process.child import Child, Command
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper

IGNORES_TERM = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
ENDS_ON_TERM = "import signal; print('up', flush=True); signal.pause()"


def python(code: str, **options: Any) -> Command:
    """Runs `code` with our environment."""
    options.setdefault("env", dict(os.environ))
    return Command(name="app", argv=[sys.executable, "-c", code], **options)


def shell(script: str, **options: Any) -> Command:
    """Runs `script` with our environment."""
    options.setdefault("env", dict(os.environ))
    return Command(name="app", argv=["/bin/sh", "-c", script], **options)


async def wait_for(ring: Ring, found: Callable[[str], bool], *, limit_seconds: float = 15) -> str:
    """The first line for which `found` holds."""
    with anyio.fail_after(limit_seconds):
        async for line in ring.follow(0):
            if found(line.text):
                return line.text
    raise AssertionError("unreachable")


async def start(reaper: Reaper, command: Command, ring: Ring) -> Child:
    """Spawn and wait for the line `up`."""
    child = reaper.spawn(command, ring)
    await wait_for(ring, lambda text: text == "up")
    return child


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
