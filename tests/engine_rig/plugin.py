"""pytest's side: `engine` for the session, `docker` for a test, `--no-engine`."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.engine_rig import rig
from tests.engine_rig.engine import Engine, Share

_REASON = "--no-engine"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-engine", action="store_true", help="leave out the tests that need a Docker engine")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason=_REASON)
    for item in items:
        # Not `keywords`, among which are the names of folders.
        if item.get_closest_marker("engine"):
            if config.getoption("--no-engine"):
                item.add_marker(skip)
        elif "engine" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"cannot run '{item.nodeid}': it uses the engine; mark it with pytest.mark.engine")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if count := sum(isinstance(each.longrepr, tuple) and each.longrepr[2].endswith(_REASON) for each in skipped):
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
