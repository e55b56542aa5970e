"""Where the services of a run live: said once, and refused where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.core.events import Event, ModeChosen
from supervisor.core.mode import Mode
from supervisor.core.settings import Settings
from supervisor.stack.placement import Placement, find_placement
from supervisor.state import Paths, State
from tests.engine import fake_engine

pytestmark = pytest.mark.anyio


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """An engine that is reached by TCP and knows no container of ours."""
    with fake_engine.answering_tcp() as port:
        yield f"tcp://127.0.0.1:{port}"


async def place(tmp_path: Path, **values: object) -> tuple[Placement, list[Event]]:
    settings = Settings(state_dir=tmp_path / "state", runtime_dir=tmp_path / "run", **values)
    told: list[Event] = []
    return await find_placement(settings, {"PATH": "/nowhere"}, State(Paths.of(settings, {})), told.append), told


async def test_embedded_is_said_in_the_line_people_look_for(tmp_path: Path) -> None:
    found, told = await place(tmp_path, mode="embedded", database_url="postgresql://elsewhere/db")
    chosen = [event for event in told if isinstance(event, ModeChosen)]
    assert [event.message for event in chosen] == ["Docker Mode: Running in EMBEDDED mode"]
    assert (found.mode, found.services, found.decision) == (Mode.EMBEDDED, ("redis", "traefik"), None)


async def test_without_services_there_is_nothing_to_run(tmp_path: Path) -> None:
    found, _ = await place(tmp_path, mode="none")
    assert (found.mode, found.services) == (Mode.NONE, ())


async def test_services_of_ours_cannot_run_on_an_engine_elsewhere(tmp_path: Path, elsewhere: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot run postgres, redis, traefik in remote mode: .*DATABASE_URL"):
        await place(tmp_path, docker_host=elsewhere)


async def test_an_app_with_external_services_runs_beside_an_engine_elsewhere(tmp_path: Path, elsewhere: str) -> None:
    found, told = await place(tmp_path, docker_host=elsewhere, services="none")
    assert (found.mode, found.services) == (Mode.REMOTE, ())
    chosen = next(event for event in told if isinstance(event, ModeChosen))
    assert (chosen.message, chosen.engine) == ("Docker Mode: Running in REMOTE mode", elsewhere)
    assert chosen.evidence


async def test_a_stack_name_that_would_make_secrets_too_long_is_refused(tmp_path: Path, elsewhere: str) -> None:
    with pytest.raises(ConfigurationError, match="it has 43 characters"):
        await place(tmp_path, docker_host=elsewhere, stack="a" * 43)
    assert (await place(tmp_path / "embedded", mode="embedded", stack="a" * 43))[0].services
