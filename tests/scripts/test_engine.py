"""`scripts/engine` and `scripts/build-image`: what they refuse before they do anything; the Dockerfiles as text."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
_NOBODY = 65534


def run(script: str, *arguments: str, path: str = "/usr/bin:/bin", uid: int | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    done = subprocess.run(
        [REPOSITORY / "scripts" / script, *arguments],
        env={"PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        user=uid,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("arguments", [(), ("bogus",), ("up", "now"), ("down", "all"), ("install", "docker")])
def test_engine_refuses_what_it_does_not_know(arguments: tuple[str, ...]) -> None:
    code, said, error = run("engine", *arguments)
    assert (code, said) == (64, "")
    assert "usage: scripts/engine" in error


@pytest.mark.parametrize("arguments", [("--bogus",), ("--tag",), ("--tag", ""), ("image",)])
def test_build_image_refuses_what_it_does_not_know(arguments: tuple[str, ...]) -> None:
    code, said, error = run("build-image", *arguments)
    assert (code, said) == (64, "")
    assert "usage: scripts/build-image" in error


@pytest.mark.parametrize("script", ["engine", "build-image"])
def test_help_goes_to_standard_output(script: str) -> None:
    code, said, error = run(script, "--help")
    assert (code, error) == (0, "")
    assert said.startswith(f"usage: scripts/{script}")


def test_certificates_that_are_not_there_are_named() -> None:
    code, _, error = run("build-image", "--ca-certificates", "/nowhere/ca.pem")
    assert code == 64
    assert "there is no readable file '/nowhere/ca.pem'" in error


def test_building_without_docker_says_what_to_install(tmp_path: Path) -> None:
    for name in ("bash", "env", "sed", "git", "dirname"):
        if found := shutil.which(name):
            (tmp_path / name).symlink_to(found)
    code, _, error = run("build-image", path=str(tmp_path))
    assert code == 69
    assert "there is no command 'docker' here" in error


def test_only_root_starts_an_engine() -> None:
    if (
        os.geteuid() == 0
        and subprocess.run(
            ["setpriv", "--reuid", str(_NOBODY), "--clear-groups", "test", "-x", REPOSITORY / "scripts"], check=False
        ).returncode
    ):
        pytest.skip("other users cannot enter this checkout")
    code, _, error = run("engine", "install", uid=_NOBODY if os.geteuid() == 0 else None)
    assert code == 69
    assert "not root" in error


# The images to ship.


def stages(name: str) -> list[str]:
    return re.split(r"^(?=FROM )", (REPOSITORY / name).read_text(), flags=re.MULTILINE)


def test_both_dockerfiles_build_the_supervisor_the_same_way() -> None:
    assert stages("Dockerfile")[1] == stages("Dockerfile.dind")[1]


@pytest.mark.parametrize(
    "name", ["Dockerfile", "Dockerfile.dind", "examples/notes/Dockerfile", "examples/notes-node/Dockerfile"]
)
def test_a_dockerfile_builds_with_both_builders(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    assert not re.search(r"^#\s*syntax=", text, re.MULTILINE)
    assert not re.search(r"^RUN --", text, re.MULTILINE)
    assert "<<" not in text


@pytest.mark.parametrize("path", sorted((REPOSITORY / "entrypoint").glob("*.sh")), ids=lambda path: path.name)
def test_an_entrypoint_is_short_and_ends_in_exec(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) < 30
    assert lines[-1].startswith("exec ")
