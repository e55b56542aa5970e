"""The machine the figures come from, without a name or a path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

PACKAGES = ("tini", "dumb-init", "supervisor", "s6", "haproxy", "wrk")


def describe() -> list[str]:
    """One fact a line."""
    memory_kib = int(re.findall(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[0])
    return [
        f"{len(os.sched_getaffinity(0))} cores ({platform.machine()}), {memory_kib / 2**20:.0f} GiB of memory",
        f"Linux {re.split(r'[^0-9.]', platform.release())[0]}, {_distribution()}, Python {platform.python_version()}",
        "beside it: " + (", ".join(_packages()) or "nothing installed"),
    ]


def load() -> str:
    """How busy the machine is now: the first thing to doubt a figure by."""
    return f"{os.getloadavg()[0]:.1f}"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "an unknown distribution")
    except OSError:
        return "an unknown distribution"


def _packages() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            asked = subprocess.run(
                ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, timeout=10
            )
        except OSError:
            return []
        if asked.returncode == 0 and asked.stdout:
            found.append(f"{package} {asked.stdout}")
    return found
