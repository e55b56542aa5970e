"""The bare `docker run` lines come up with no further setting, for both examples."""

from __future__ import annotations

import time

import pytest

from tests.e2e.docker.conftest import MakeStack, Measured
from tests.e2e.docker.stack import Kind
from tests.e2e.harness import wait_until

pytestmark = pytest.mark.engine
_HEALTH_SECONDS = 30  # the first check comes 10 s after the start


@pytest.mark.parametrize("example", ["notes", "notes-node"])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_bare_line_comes_up_says_its_mode_and_serves(
    make_stack: MakeStack, measured: Measured, kind: Kind, example: str
) -> None:
    stack = make_stack(kind, example=example)
    since = time.monotonic()
    stack.boot()
    stack.add_note("first")
    measured(stack.measure("first", lambda: True, since=since))
    (chosen,) = stack.events("mode.chosen")
    assert chosen["msg"] == f"Docker Mode: Running in {kind.upper()} mode"
    assert chosen["reason"]
    environ = stack.app_environ()
    assert environ["SUPERVISOR_DOCKER_MODE"] == kind
    assert environ["DATABASE_URL"].startswith(f"postgresql://{stack.name}:")
    assert environ["REDIS_URL"].startswith("redis://")
    assert [event for event in stack.events() if event["level"] == "error" and event["source"] != "dockerd"] == []
    wait_until("HEALTHCHECK is content", lambda: stack.state["Health"]["Status"] == "healthy", limit=_HEALTH_SECONDS)
