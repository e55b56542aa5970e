"""Releases applied to containers, in both modes, under load on both published ports."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.docker.conftest import Keeper
from tests.e2e.docker.documented import booted_again
from tests.e2e.docker.echo import EchoStack, Loads
from tests.e2e.docker.stack import Kind, fetch
from tests.e2e.harness import REPO, wait_until
from tests.e2e.reload.rig import LOST, PROGRAM, failures
from tests.engine_rig.engine import Engine

pytestmark = pytest.mark.engine
_MOST_LOST = 20
_MINUTE = 120


@pytest.fixture(scope="class")
def release_keeper(engine: Engine) -> Iterator[Keeper[EchoStack]]:
    made = Keeper(
        engine,
        EchoStack,
        SUPERVISOR_RELEASE_UNSIGNED="allow",
        SUPERVISOR_RELEASE_BAKE_SECONDS="3",
        SUPERVISOR_APP_START_SECONDS="8",
    )
    try:
        yield made
    finally:
        made.end()


class Releases:
    """Tests over one stack that they share: each finds it whole, and leaves it running."""

    kind: Kind

    @pytest.fixture
    def stack(self, release_keeper: Keeper[EchoStack]) -> EchoStack:
        return release_keeper.whole(self.kind)

    def test_five_releases_and_back_under_load_fail_only_what_the_broken_ones_had(
        self, stack: EchoStack, tmp_path: Path
    ) -> None:
        built = {
            "good": release(stack, tmp_path),
            "500s": release(stack, tmp_path, health_status=500),
            "crashes": release(stack, tmp_path, dies_after=2.0),
            "better": release(stack, tmp_path),
            "best": release(stack, tmp_path),
        }
        before = len(history(stack))
        with Loads(stack) as loads:
            codes = {}
            for name, archive in built.items():
                codes[name] = deploy(stack, archive)
                stack.inside("sh", "-c", "supervisor release confirm || true")
            assert codes == {"good": 0, "500s": 1, "crashes": 1, "better": 0, "best": 0}
            loads.wait_version(version_of(built["best"]))
            stack.inside("supervisor", "release", "rollback")
            wait_until("it is back", lambda: serves(stack) == version_of(built["better"]), limit=20)
            reports = loads.stop()
        lost = failures(reports, may_go_back=True)
        assert set(lost) <= LOST
        assert sum(lost.values()) <= _MOST_LOST
        told = [(line["action"], line["outcome"]) for line in history(stack)[before:]]
        assert told == [
            ("apply", "ok"),
            ("apply", "rejected"),
            ("apply", "rolled_back"),
            ("apply", "ok"),
            ("apply", "ok"),
            ("roll back", "ok"),
        ]

    def test_a_restart_and_a_kill_of_the_container_keep_the_release(self, stack: EchoStack, tmp_path: Path) -> None:
        archive = release(stack, tmp_path)
        assert deploy(stack, archive) == 0
        for word in ("restart", "kill"):
            again = booted_again(stack)
            stack.share.engine.run(word, stack.container)
            if word == "kill":
                stack.share.engine.run("start", stack.container)
            wait_until("it is up again", again, limit=_MINUTE)
            assert serves(stack) == version_of(archive)
        stack.inside("supervisor", "release", "rollback", "baked")
        assert serves(stack) == stack.version


class TestReleasesInDind(Releases):
    kind = Kind.DIND


class TestReleasesOverTheSocket(Releases):
    kind = Kind.SOCKET


_number = 100


def release(stack: EchoStack, folder: Path, **behaviour: Any) -> Path:
    """New code as a release, built by the command; gives its archive."""
    global _number
    _number += 1
    source = folder / f"source-{_number}"
    source.mkdir()
    shutil.copy(PROGRAM, source)
    (source / "behaviour.json").write_text(json.dumps({"version": _number, **behaviour}))
    named = ["--app", "app", "--version", f"{_number}.0", "--sequence", str(_number)]
    command = [sys.executable, "-m", "supervisor", "release", "build", str(source), *named]
    subprocess.run(command, check=True, cwd=REPO, capture_output=True, timeout=_MINUTE)
    return source / "dist-tarball" / f"app-{_number}.0.tar.zst"


def version_of(archive: Path) -> int:
    return int(archive.name.split("-")[1].split(".")[0])


def deploy(stack: EchoStack, archive: Path) -> int:
    """By the script, from outside."""
    command = [str(REPO / "scripts" / "deploy-release"), stack.container, str(archive)]
    ended = subprocess.run(command, env=stack.share.engine.environ, capture_output=True, text=True, timeout=_MINUTE)
    assert ended.returncode in (0, 1), ended.stderr
    return ended.returncode


def serves(stack: EchoStack) -> int:
    return int(fetch(f"{stack.app_url}/echo")[1])


def history(stack: EchoStack) -> list[dict[str, Any]]:
    found = json.loads(stack.inside("supervisor", "release", "history", "--verify", "--json"))
    assert found["verified"] == len(found["history"])
    return list(found["history"])
