"""`--no-engine` leaves the tests of the engine out and does not keep it to itself."""

from __future__ import annotations

import subprocess
import sys

from tests.engine_rig.places import REPOSITORY


def test_no_engine_says_loudly_what_was_not_proved() -> None:
    argv = (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--no-engine",
        "tests/engine_rig/test_rig.py",
    )
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "NOT PROVED" in done.stdout
    assert "tests on a real Docker engine were left out" in done.stdout
    assert " passed" not in done.stdout
