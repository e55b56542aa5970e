"""A supervisor for each test, ended with the test whatever happened."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import NOTES, Supervisor

Make = Callable[..., Supervisor]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short folder that every user may enter: Postgres runs as another one, and socket paths are limited."""
    made = Path(tempfile.mkdtemp(prefix="sv-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    """Makes supervisors that are ended with the test."""
    made: list[Supervisor] = []

    def make_one(*arguments: str, **fields: Any) -> Supervisor:
        where = fields.pop("folder", None) or folder / str(len(made))
        where.mkdir(exist_ok=True)
        where.chmod(0o755)
        supervisor = Supervisor(folder=where, arguments=list(arguments), **fields)
        made.append(supervisor)
        return supervisor

    yield make_one
    for supervisor in reversed(made):
        supervisor.end_everything()


@pytest.fixture
def notes(make: Make, folder: Path) -> Supervisor:
    """The whole stack with a copy of examples/notes, not started yet."""
    app = folder / "notes"
    shutil.copytree(NOTES, app, ignore=shutil.ignore_patterns(".reload-trigger", "__pycache__"))
    return make("--mode", "embedded", "--config", str(app / "supervisor.toml"))
