"""pytest's side: `engine` for the session, `docker` for a test, `--no-engine`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.engine_rig import rig
from tests.engine_rig.engine import Engine, Share

_SKIPPED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-engine", action="store_true", help="leave out the tests that need a Docker engine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--no-engine"):
        return
    skip = pytest.mark.skip(reason="--no-engine")
    marked = [item for item in items if "engine" in item.keywords]
    for item in marked:
        item.add_marker(skip)
    config.stash[_SKIPPED] = len(marked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if count := config.stash.get(_SKIPPED, 0):
        terminalreporter.section("NOT PROVED", sep="!", red=True, bold=True)
        terminalreporter.line(
            f"--no-engine: {count} tests on a real Docker engine were left out; a run without them proves nothing "
            "about the Docker modes",
            red=True,
        )


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine that answers; a private one is ended with the last run that uses it."""
    taken = rig.take()
    try:
        yield taken.engine
    finally:
        taken.leave()


@pytest.fixture
def docker(engine: Engine) -> Iterator[Share]:
    """What is this test's own on the engine, removed with it."""
    share = Share(engine, f"t{uuid.uuid4().hex[:8]}")
    try:
        yield share
    finally:
        share.remove()
