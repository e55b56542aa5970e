"""What the program that unpacks can still do once it has begun: nothing outside of the tree that it makes."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.releases.unpack.archives import archive, file
from tests.releases.unpack.rig import LIMIT_SECONDS, Rig
from tests.releases.unpack.test_child import ENVIRONMENT

# The child itself, and then what an archive that has taken it over might try.
TAKEN_OVER = """
import json, os, socket, sys
from supervisor.releases.unpack.child import main
victim, capabilities = sys.argv[1], open("/proc/self/status")
assert main() == 0
tried = {
    "read": lambda: os.open(victim, os.O_RDONLY),
    "write": lambda: os.open(victim, os.O_WRONLY),
    "make": lambda: os.mkdir(victim + "s"),
    "delete": lambda: os.unlink(victim),
    "run": lambda: os.execv("/bin/true", ["true"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9), 5),
    "signal": lambda: os.kill(os.getppid(), 0),
}
done = {}
for name, attempt in tried.items():
    try:
        attempt()
        done[name] = ""
    except OSError as error:
        done[name] = type(error).__name__
done["capabilities"] = next(line.split()[1] for line in capabilities if line.startswith("CapPrm"))
print(json.dumps(done))
"""


def landlock_version() -> int:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1))


def taken_over(rig: Rig) -> dict[str, Any]:
    job = rig.job(archive(file("app/a/b", b"hello")))
    argv = [sys.executable, "-c", TAKEN_OVER, str(rig.outside / "victim")]
    run = subprocess.run(
        argv, input=job.as_json(), capture_output=True, timeout=LIMIT_SECONDS, env=ENVIRONMENT, check=True
    )
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    assert Path(rig.tree, "a/b").read_bytes() == b"hello"
    return found


def test_child_has_no_capabilities(rig: Rig) -> None:
    assert int(taken_over(rig)["capabilities"], 16) == 0


def test_child_that_is_taken_over_reaches_nothing_outside(rig: Rig) -> None:
    version = landlock_version()
    if version < 1:
        pytest.skip("no Landlock in this kernel")
    found = taken_over(rig)
    for name in ("read", "write", "make", "delete", "run"):
        assert found[name] == "PermissionError", name
    if version >= 4:
        assert found["connect"] == "PermissionError"
    if version >= 6:
        assert found["signal"] == "PermissionError"
    assert [(place.name, place.read_text()) for place in rig.outside.iterdir()] == [("victim", "as it was")]


def test_kernel_without_it_unpacks_all_the_same(rig: Rig) -> None:
    job = rig.job(archive(file("app/a/b", b"hello")))
    without = """
import ctypes, sys
from supervisor.releases.unpack import child, confine
class Old(ctypes.CDLL):
    def __getattr__(self, name):
        return (lambda *words: -1) if name in ("syscall", "capset") else super().__getattr__(name)
confine.ctypes.CDLL = Old
sys.exit(child.main())
"""
    argv = [sys.executable, "-c", without]
    run = subprocess.run(argv, input=job.as_json(), capture_output=True, timeout=LIMIT_SECONDS, env=ENVIRONMENT)
    assert (run.returncode, run.stderr) == (0, b"")
    assert Path(rig.tree, "a/b").read_bytes() == b"hello"
