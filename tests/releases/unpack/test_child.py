"""The program that unpacks, seen from outside: a full disk, and a supervisor that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import supervisor
from tests.releases.unpack.archives import archive, file, hard_link
from tests.releases.unpack.rig import LIMIT_SECONDS, Rig

CHILD = [sys.executable, "-m", "supervisor.releases.unpack.child"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(supervisor.__file__).parent.parent)}
# The mount is gone with the namespace. Without a PID namespace, so that the child knows its parent.
ON_TMPFS = 'mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$@"'
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_TMPFS, "sh"]

PARENT = """
import dataclasses, os, subprocess, sys
from supervisor.releases.unpack.job import Job
job = dataclasses.replace(Job.parse(sys.stdin.buffer.read()), parent=os.getpid())
child = subprocess.Popen([sys.executable, "-m", "supervisor.releases.unpack.child"], stdin=subprocess.PIPE)
child.stdin.write(job.as_json())
child.stdin.close()
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.namespaces
@pytest.mark.parametrize("options", ["size=1m", "nr_inodes=20"])
def test_full_disk_is_said_with_the_entry(options: str, rig: Rig) -> None:
    noise = os.urandom(100_000)
    job = rig.job(archive(*(file(f"app/f{number}", noise) for number in range(50))))
    argv = [*UNSHARE, options, str(rig.tree.parent), *CHILD]
    done = subprocess.run(argv, input=job.as_json(), capture_output=True, timeout=LIMIT_SECONDS, env=ENVIRONMENT)
    if b"unshare" in done.stderr or b"mount" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.decode().strip()}")
    reason = json.loads(done.stdout.splitlines()[-1])["reason"]
    assert reason.startswith("cannot unpack the archive: there is no room for it")
    assert reason.endswith("(No space left on device); make room on the disk of the releases")


def test_child_ends_with_a_supervisor_that_is_killed(rig: Rig) -> None:
    copies = 60_000
    links = (hard_link(f"app/h{number}", "app/good") for number in range(copies))
    job = rig.job(archive(file("app/good"), *links), max_entries=copies + 1)
    words = [sys.executable, "-c", PARENT]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        parent.stdin.write(job.as_json())
        parent.stdin.close()
        pid = int(parent.stdout.readline())
        deadline = time.monotonic() + LIMIT_SECONDS
        while not rig.tree.exists():
            assert time.monotonic() < deadline
        parent.send_signal(signal.SIGKILL)
        while _lives(pid):
            assert time.monotonic() < deadline
    assert sum(1 for _ in rig.tree.iterdir()) <= copies


def test_child_that_gets_no_job_ends(rig: Rig) -> None:
    done = subprocess.run(CHILD, input=b"", capture_output=True, timeout=LIMIT_SECONDS, env=ENVIRONMENT, check=True)
    assert done.stdout == done.stderr == b""


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_child_that_comes_to_another_parent_does_nothing(rig: Rig) -> None:
    job = rig.job(archive(file("app/good")))
    words = job.as_json().replace(b'"parent": %d' % os.getpid(), b'"parent": 1')
    done = subprocess.run(CHILD, input=words, capture_output=True, timeout=LIMIT_SECONDS, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (1, b"")
    assert not rig.tree.exists()
