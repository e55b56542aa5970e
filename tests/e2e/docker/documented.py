"""What a stack by a documented line survives in both modes: a note written before is there after, all by itself."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.docker.conftest import Keeper, Measured
from tests.e2e.docker.stack import Kind, Stack

_numbers = itertools.count(1)


class Documented:
    """Tests over one stack that they share: each finds it whole, and leaves it running."""

    kind: Kind

    @pytest.fixture
    def stack(self, keeper: Keeper[Stack]) -> Stack:
        return keeper.whole(self.kind)

    def test_a_restart_of_the_container_finds_the_notes_again(self, stack: Stack, measured: Measured) -> None:
        survive(stack, measured, lambda: stack.share.engine.run("restart", stack.container), booted_again(stack))

    def test_kill_9_of_the_container_is_survived(self, stack: Stack, measured: Measured) -> None:
        # Not `docker kill`: after that the engine does not start a container again.
        survive(stack, measured, lambda: os.kill(stack.init_on_host(), signal.SIGKILL), booted_again(stack))
        assert stack.state["Pid"] > 0

    def test_a_container_created_anew_on_the_same_volumes_has_the_notes(self, stack: Stack, measured: Measured) -> None:
        def create_anew() -> None:
            stack.remove()
            stack.run()

        survive(stack, measured, create_anew, booted(stack))

    def test_a_killed_app_comes_back(self, stack: Stack, measured: Measured) -> None:
        pid = stack.app
        survive(stack, measured, lambda: stack.kill_9(pid), lambda: stack.app != pid)

    @pytest.mark.parametrize("service", ["postgres", "redis"])
    def test_a_killed_data_container_comes_back(self, stack: Stack, measured: Measured, service: str) -> None:
        before = stack.containers()[service]
        survive(stack, measured, lambda: stack.docker("kill", before), lambda: stack.containers()[service] != before)

    def test_a_removed_traefik_comes_back(self, stack: Stack, measured: Measured) -> None:
        before = stack.containers()["traefik"]
        survive(
            stack,
            measured,
            lambda: stack.docker("rm", "--force", before),
            lambda: stack.containers()["traefik"] != before,
        )

    @pytest.mark.parametrize("way", ["HUP", "file", "command"])
    def test_a_reload_replaces_the_app_and_nothing_else(self, stack: Stack, measured: Measured, way: str) -> None:
        commands = {
            # Not `docker kill --signal`: after that the engine does not start a container again.
            "HUP": ("sh", "-c", "kill -HUP 1"),
            "file": ("touch", "/app/.reload-trigger"),
            "command": ("supervisor", "reload"),
        }
        before = standing(stack)
        app, reloads = stack.app, len(stack.events("reload.finished"))
        survive(
            stack,
            measured,
            lambda: stack.inside(*commands[way]),
            lambda: len(stack.events("reload.finished")) > reloads,
        )
        assert stack.events("reload.finished")[-1]["result"] == "ok"
        assert stack.app != app
        assert standing(stack) == before


def standing(stack: Stack) -> dict[str, Any]:
    """What a reload must leave as it is: the containers of the services, and the inner engine."""
    return {**stack.containers(), "dockerd": stack.dockerd if stack.kind is Kind.DIND else None}


def survive(stack: Stack, measured: Measured, ordeal: Callable[[], object], happened: Callable[[], bool]) -> None:
    """Write a note, do it, and have the note and everything else back within the limit."""
    note = f"note {next(_numbers)}"
    stack.add_note(note)
    since = time.monotonic()
    ordeal()
    measured(stack.measure(note, happened, since=since))


def booted(stack: Stack) -> Callable[[], bool]:
    """A condition on a container created anew."""
    return lambda: bool(stack.events("boot.finished"))


def booted_again(stack: Stack) -> Callable[[], bool]:
    """A condition: the same container was started once more and its boot is through."""
    boots = len(stack.events("boot.finished"))
    return lambda: len(stack.events("boot.finished")) > boots
