"""Releases applied to containers, in both modes: under load on both published ports, and killed within."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.docker.conftest import Keeper
from tests.e2e.docker.documented import booted_again
from tests.e2e.docker.echo import EchoStack, Loads
from tests.e2e.docker.releases import Asked, agreed, apply, applying, deploy, history, release, serves, version_of
from tests.e2e.docker.stack import Kind
from tests.e2e.harness import wait_until
from tests.e2e.reload.rig import LOST
from tests.engine_rig.engine import Engine, Share

pytestmark = pytest.mark.engine
Record = Callable[[str, str], None]  # what is no text is not passed on between processes
_KEPT_RATE, _NEW_RATE = 250.0, 25.0  # on each of two ports: 500 requests a second on kept connections
_CRASH_SECONDS = 3.0
_BAKE_SECONDS = 3.3  # begins after the app listens, so the crash always falls into it
_LONG_REQUESTS = 100_000
_KILLS = {Kind.SOCKET: 5, Kind.DIND: 2}  # a start costs 2 s, and 7 s with an engine within
_ENVIRON = {"SUPERVISOR_RELEASE_UNSIGNED": "allow", "SUPERVISOR_APP_START_SECONDS": "8"}


@pytest.fixture(scope="class")
def release_keeper(engine: Engine) -> Iterator[Keeper[EchoStack]]:
    made = Keeper(engine, EchoStack, **_ENVIRON, SUPERVISOR_RELEASE_BAKE_SECONDS=str(_BAKE_SECONDS))
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

    def test_five_releases_and_back_at_500_a_second_fail_only_what_a_broken_one_had(
        self, stack: EchoStack, tmp_path: Path, record_property: Record
    ) -> None:
        built = {
            "good": release(tmp_path),
            "500s": release(tmp_path, health_status=500),
            "crashes": release(tmp_path, dies_after=_CRASH_SECONDS),
            "better": release(tmp_path),
            "best": release(tmp_path),
        }
        before = len(history(stack))
        codes, ended = {}, {}
        with Loads(stack, kept_rate=_KEPT_RATE, new_rate=_NEW_RATE) as loads:
            began = time.monotonic()
            for name, archive in built.items():
                codes[name] = deploy(stack, archive) if name == "good" else apply(stack, archive)
                ended[name] = time.monotonic()
                if codes[name] == 0:
                    stack.inside("supervisor", "release", "confirm")
            loads.wait_version(version_of(built["best"]))
            stack.inside("supervisor", "release", "rollback")
            wait_until("it is back", lambda: serves(stack) == version_of(built["better"]), limit=20)
            asked = Asked.of(loads.stop(), time.monotonic() - began)
        record_property("load", str(asked))
        assert codes == {"good": 0, "500s": 1, "crashes": 1, "better": 0, "best": 0}
        assert set(asked.failed) <= LOST
        assert sum(asked.failed.values()) <= loads.most_in_hand
        if asked.first_failed_at is not None and asked.last_failed_at is not None:
            assert asked.last_failed_at - asked.first_failed_at < 1, "at the one crash"
            assert ended["500s"] < asked.first_failed_at <= asked.last_failed_at < ended["crashes"], asked
        assert history(stack)[before:] == [
            ("apply", "ok"),
            ("apply", "rejected"),
            ("apply", "rolled_back"),
            ("apply", "ok"),
            ("apply", "ok"),
            ("roll back", "ok"),
        ]
        again = booted_again(stack)
        stack.share.engine.run("restart", stack.container)
        wait_until("it is up again", again, limit=120)
        assert serves(stack) == version_of(built["better"])
        assert agreed(stack)["previous"].startswith(f"{version_of(built['best'])}.0-")

    @pytest.mark.soak
    def test_updates_and_roll_backs_fail_none_of_100_000_requests(
        self, stack: EchoStack, tmp_path: Path, record_property: Record
    ) -> None:
        assert deploy(stack, release(tmp_path)) == 0
        stack.inside("supervisor", "release", "confirm")
        wanted_seconds = _LONG_REQUESTS / (2 * _KEPT_RATE)
        with Loads(stack, kept_rate=_KEPT_RATE, new_rate=_NEW_RATE) as loads:
            began = time.monotonic()
            while time.monotonic() - began <= wanted_seconds:
                archive = release(tmp_path)
                assert deploy(stack, archive) == 0
                stack.inside("supervisor", "release", "confirm")
                loads.wait_version(version_of(archive))
                stack.inside("supervisor", "release", "rollback")
            asked = Asked.of(loads.stop(), time.monotonic() - began)
        record_property("load", str(asked))
        assert asked.kept >= _LONG_REQUESTS
        assert asked.failed == {}


class TestReleasesInDind(Releases):
    kind = Kind.DIND


class TestReleasesOverTheSocket(Releases):
    kind = Kind.SOCKET


@pytest.fixture
def alone(docker: Share, kind: Kind) -> Iterator[EchoStack]:
    """A stack without services, for boots that are soon over."""
    environ = {**_ENVIRON, "SUPERVISOR_SERVICES": "none", "SUPERVISOR_RELEASE_BAKE_SECONDS": "0.3"}
    stack = EchoStack(docker, kind, documented=True, environ=environ)
    stack.boot()
    try:
        yield stack
    finally:
        stack.end()


@pytest.mark.parametrize("kind", Kind)
def test_docker_kill_at_random_moments_of_an_update_leaves_the_old_release_or_the_new(
    alone: EchoStack, kind: Kind, tmp_path: Path, record_property: Record, soak: bool
) -> None:
    seed = random.getrandbits(32)
    moments = random.Random(seed)
    began = time.monotonic()
    with applying(alone, release(tmp_path)) as process:
        assert process.wait(60) == 0
    whole = time.monotonic() - began
    found = []
    for _ in range(25 if soak else _KILLS[kind]):
        alone.inside("sh", "-c", "supervisor release confirm || true")
        before, archive = serves(alone), release(tmp_path)
        # Before is the command's own start, and after it the bake's end: little happens on the disk.
        moment = moments.uniform(whole / 4, whole * 3 / 4)
        with applying(alone, archive):
            time.sleep(moment)  # the moment is what is tried, nothing is waited for
            kill_and_start(alone)
        state = agreed(alone)
        found.append(f"{moment:.2f} s {'old' if serves(alone) == before else 'new'}")
        assert serves(alone) in (before, version_of(archive)), f"seed {seed}, {found}: {state}"
    alone.inside("sh", "-c", "supervisor release confirm || true")
    alone.inside("supervisor", "release", "rollback", "baked")
    assert serves(alone) == alone.version
    record_property("kills", f"seed {seed:10} of {whole:.2f} s: {', '.join(found)}")


def kill_and_start(stack: EchoStack) -> None:
    """As a user does it; returns once it is through its boot."""
    boots = len(stack.events("boot.finished"))
    stack.share.engine.run("kill", "--signal", "KILL", stack.container)
    stack.share.engine.run("start", stack.container)
    stack.wait_event("boot.finished", after=boots)
