"""What runs beside what when pytest-xdist spreads a run over processes, `--dist loadfile`; not for a run in one.

Tests of one file run one after another, in one process; so do the files that use the Docker engine: their tests restart
it, share its Swarm and publish fixed ports. Those that bring daemons of their own, in namespaces, run beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

ENGINE, DAEMONS = "engine", "daemons"
_REPOSITORY = Path(__file__).resolve().parents[1]
_MARK = "pytest.mark.engine"
_OWN_DAEMONS = ("from tests.engine.daemons import", "from tests.engine.dockerd_rig import")


@cache
def group(file: str) -> str:
    """Of a test file. Read from its text, as the process that gives out the work collects no tests."""
    text = (_REPOSITORY / file).read_text()
    if _MARK not in text:
        return file
    return DAEMONS if any(words in text for words in _OWN_DAEMONS) else ENGINE


def rank(file: str) -> int:
    """The order in which files are given out, the slow ones first: at the end all wait for the last one."""
    return 0 if group(file) == ENGINE else 1 if file.startswith("tests/e2e/") else 2


class Groups(LoadFileScheduling):  # type: ignore[misc]
    """By file, the files of the engine as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        return group(_file(nodeid))


@pytest.hookimpl(optionalhook=True)  # unknown with `-p no:xdist`
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups | None:
    return Groups(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    yield  # pytest-randomly has made its order, which stays within a rank
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank(_file(item.nodeid)))


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]
