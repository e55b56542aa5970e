"""`deploy-tarball.sh`, as a build writes it, with a `docker` on the PATH that runs things on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from supervisor.releases.build.deploy_script import deploy_script
from supervisor.releases.build.output import MANIFEST, SCRIPT, SIGNATURE
from tests.releases.build.rig import LIMIT_SECONDS, build_in, make_tree, run

# Its container is this machine: `exec` runs the command, `cp` copies. Every call is written down.
DOCKER = r"""#!/bin/sh
echo "$*" >>"$RIG/calls"
case "$1 $2" in
  "container inspect")
    [ "$5" = app ] || { echo "Error response from daemon: No such container: $5" >&2; exit 1; }
    cat "$RIG/state" ;;
  exec*)
    shift
    if [ "$1" = -i ]; then shift; else exec </dev/null; fi
    shift
    PATH="$RIG/inside:$PATH" exec "$@" ;;
  cp*) [ -e "$RIG/no-cp" ] || cp "$2" "${3#app:}" ;;
  *) exit 99 ;;
esac
"""
SUPERVISOR = r"""#!/bin/sh
if [ "$4" = "" ] && [ "$3" = --help ]; then exit "$(cat "$RIG/knows")"; fi
echo "$*" >"$RIG/applied"
for word in "$@"; do [ ! -f "$word" ] || { cat "$word"; echo; } >>"$RIG/contents"; done
dirname "$3" >"$RIG/there" && ls -ld "$(dirname "$3")" >>"$RIG/there"
echo "applied it"
echo "a warning" >&2
if [ -e "$RIG/slow" ]; then echo $$ >"$RIG/pid" && exec sleep 60; fi
exit "$(cat "$RIG/code")"
"""


@dataclass
class Rig:
    folder: Path

    def __post_init__(self) -> None:
        for name in ("bin", "inside"):
            (self.folder / name).mkdir(parents=True)
        for path, text in (("bin/docker", DOCKER), ("inside/supervisor", SUPERVISOR)):
            (self.folder / path).write_text(text)
            (self.folder / path).chmod(0o755)
        self.set(state="running\n", knows="0", code="0")

    def set(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name.replace("_", "-")).write_text(text)

    def read(self, name: str) -> str:
        place = self.folder / name
        return place.read_text() if place.exists() else ""

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "RIG": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    def deploy(self, *words: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        return run(words[0], *words[1:], env=self.environ, check=False, **options)

    def sleeps(self) -> bool:
        """Whether the supervisor's last program runs: a shell may miss a signal between two of them."""
        return self.read("pid").endswith("\n") and self.read(f"/proc/{self.read('pid').strip()}/comm") == "sleep\n"

    @property
    def there(self) -> Path:
        """The folder in the container that the copies were in."""
        return Path(self.read("there").splitlines()[0])


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "rig")


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """The archive; beside it are the manifest, a signature and the script."""
    made = build_in(make_tree(tmp_path / "the app"))
    (made.output / SIGNATURE).write_text("the signature")
    return made.archive


def test_the_script_is_clean() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    checked = subprocess.run(
        [str(shellcheck), "--shell=sh", "-"],
        input=deploy_script(),
        text=True,
        capture_output=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_it_brings_archive_manifest_and_signature_and_applies_them(rig: Rig, built: Path) -> None:
    done = rig.deploy(built.parent / SCRIPT, "app", built)
    assert (done.returncode, done.stdout, done.stderr) == (0, "applied it\n", "a warning\n")
    there = rig.there
    name = built.name
    assert rig.read("applied").split() == [
        *("release", "apply", f"{there}/{name}"),
        *("--manifest", f"{there}/{MANIFEST}", "--signature", f"{there}/{SIGNATURE}"),
    ]
    contents = (rig.folder / "contents").read_bytes()
    assert contents == b"\n".join([(built.parent / each).read_bytes() for each in (name, MANIFEST, SIGNATURE)] + [b""])
    assert rig.read("there").splitlines()[1].startswith("drwx------")
    assert not there.exists()


def test_it_works_from_anywhere_with_any_shell(rig: Rig, built: Path, tmp_path: Path) -> None:
    """And a relative path, with signs in it that a shell could take amiss."""
    folder = tmp_path / "-a 'b' $(c)"
    shutil.copytree(built.parent, folder)
    for shell in ("sh", "bash"):
        done = rig.deploy(shell, folder / SCRIPT, "app", f"./{folder.name}/{built.name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert not rig.there.exists()


@pytest.mark.parametrize("code", [1, 13, 64, 137])
def test_it_ends_with_the_code_of_the_supervisor(rig: Rig, built: Path, code: int) -> None:
    rig.set(code=str(code))
    assert rig.deploy(built.parent / SCRIPT, "app", built).returncode == code
    assert not rig.there.exists()


def test_what_docker_cannot_copy_is_sent_through_a_program(rig: Rig, built: Path) -> None:
    """`docker cp` says that it copied into a tmpfs, and nothing is there."""
    rig.set(no_cp="")
    assert rig.deploy(built.parent / SCRIPT, "app", built).returncode == 0
    assert (rig.folder / "contents").read_bytes().startswith(built.read_bytes())


def test_without_a_signature_none_is_sent(rig: Rig, built: Path) -> None:
    (built.parent / SIGNATURE).unlink()
    assert rig.deploy(built.parent / SCRIPT, "app", built).returncode == 0
    assert rig.read("applied").split()[3:] == ["--manifest", f"{rig.there}/{MANIFEST}"]


def test_an_archive_without_a_manifest_goes_alone(rig: Rig, built: Path) -> None:
    (built.parent / MANIFEST).unlink()
    assert rig.deploy(built.parent / SCRIPT, "app", built).returncode == 0
    assert rig.read("applied").split()[2:] == [f"{rig.there}/{built.name}"]


def test_a_manifest_of_another_archive_is_refused(rig: Rig, built: Path) -> None:
    other = built.with_name("shop-1.2.tar.zst")
    built.rename(other)
    done = rig.deploy(built.parent / SCRIPT, "app", other)
    assert done.returncode == 66
    assert "the manifest.json beside 'shop-1.2.tar.zst' is that of another archive" in done.stderr
    assert rig.read("calls") == ""


@pytest.mark.parametrize(
    ("files", "container", "code", "why"),
    [
        ({}, "none", 69, "No such container: none; `docker ps` lists those that run"),
        ({"state": "exited\n"}, "app", 69, "it is exited; start it first (docker start app)"),
        (
            {"knows": "64"},
            "app",
            69,
            "its supervisor knows no `release apply` (it ends with 64); update the supervisor",
        ),
        ({"knows": "127"}, "app", 69, "it has no program 'supervisor' that can be run"),
    ],
)
def test_a_container_that_cannot_take_it_is_told_before_anything_is_copied(
    rig: Rig, built: Path, files: dict[str, str], container: str, code: int, why: str
) -> None:
    rig.set(**files)
    done = rig.deploy(built.parent / SCRIPT, container, built)
    assert done.returncode == code
    assert f"deploy-tarball: cannot deploy to container '{container}': " in done.stderr
    assert why in done.stderr
    assert "mktemp" not in rig.read("calls")


def test_a_host_without_docker_is_told(built: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for name in ("sh", "dirname", "basename", "grep", "cat"):
        found = shutil.which(name)
        assert found
        (tmp_path / "few" / name).symlink_to(found)
    done = run(built.parent / SCRIPT, "app", built, env={"PATH": str(tmp_path / "few")}, check=False)
    assert (done.returncode, "there is no command 'docker' here" in done.stderr) == (69, True)


@pytest.mark.parametrize("words", [[], ["app"], ["app", "a", "b"], ["-x", "a"], ["", "a"], ["app", ""]])
def test_wrong_words_are_a_usage_error(rig: Rig, built: Path, words: list[str]) -> None:
    done = rig.deploy(built.parent / SCRIPT, *words)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("usage: deploy-tarball.sh CONTAINER FILE\n")


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_no_error(rig: Rig, built: Path, word: str) -> None:
    done = rig.deploy(built.parent / SCRIPT, word)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: deploy-tarball.sh CONTAINER FILE\n")


def test_a_missing_file_is_told(rig: Rig, built: Path) -> None:
    done = rig.deploy(built.parent / SCRIPT, "app", "gone.tar.zst")
    assert (done.returncode, "there is no file 'gone.tar.zst' that can be read" in done.stderr) == (66, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_copies_are_removed_when_it_is_interrupted(rig: Rig, built: Path, number: signal.Signals) -> None:
    """As a terminal does it: the signal goes to all that runs there."""
    rig.set(slow="")
    with subprocess.Popen(
        [str(built.parent / SCRIPT), "app", str(built)],
        env=rig.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"applied it\n"
        until = time.monotonic() + LIMIT_SECONDS
        while not rig.sleeps():
            assert time.monotonic() < until
        there = rig.there
        assert (there / built.name).exists()
        os.killpg(process.pid, number)
        assert process.wait(LIMIT_SECONDS) == 128 + number
    assert not there.exists()
