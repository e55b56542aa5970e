"""A container whose memory is too small for two copies of the app."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.docker.echo import EchoStack
from tests.e2e.docker.stack import Kind, fetch
from tests.engine_rig.engine import Share

pytestmark = pytest.mark.engine
_LIMIT_MIB, _BALLAST_MIB = 384, 160


@pytest.fixture
def stack(docker: Share) -> Iterator[EchoStack]:
    environ = {"SUPERVISOR_BAKE_SECONDS": "0.3"}
    made = EchoStack(docker, Kind.SOCKET, environ=environ, options=("--memory", f"{_LIMIT_MIB}m"))
    yield made
    made.end()


def test_a_reload_without_room_for_two_copies_is_refused_and_the_app_serves_on(stack: EchoStack) -> None:
    stack.boot()
    assert reload(stack) == "ok"
    stack.release(ballast_mib=_BALLAST_MIB)
    assert reload(stack) == "ok"
    refused = stack.version
    stack.release(ballast_mib=_BALLAST_MIB)
    assert reload(stack) == "rejected"
    reason = stack.events("reload.finished")[-1]["reason"]
    assert "cannot run two copies" in reason
    assert "raise the container's memory limit, or set SUPERVISOR_OVERLAP=false" in reason
    assert fetch(f"{stack.app_url}/echo")[1] == str(refused)
    assert not stack.state["OOMKilled"]


def reload(stack: EchoStack) -> str:
    """Gives how it ended."""
    stack.inside("supervisor", "reload", check=False)
    return str(stack.events("reload.finished")[-1]["result"])
