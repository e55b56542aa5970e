"""A folder for an app, and detection of what is put there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.detect.detect import detect
from supervisor.detect.launch import Order
from supervisor.detect.model import Detected, Place, Variable

SECONDS = 30.0


class App:
    """An app made of files, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str, *, mode: int = 0o644) -> Path:
        """Add a file."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    async def detect(self, entry: str, *, seconds: float = SECONDS, path: str = "", **given: str) -> Detected:
        """What the entry reads."""
        return await detect(
            Order(entry, self.folder, path or os.environ["PATH"], "C.UTF-8", given=given, seconds=seconds)
        )

    def at(self, variable: Variable) -> list[str]:
        """Where it is read, like `main.py:3`."""
        return [self._at(place) for place in variable.places]

    def _at(self, place: Place) -> str:
        return f"{os.path.relpath(place.file, self.folder)}:{place.line}"


@pytest.fixture
def app() -> Iterator[App]:
    with tempfile.TemporaryDirectory(prefix="detect-", dir="/tmp") as name:
        yield App(Path(name).resolve())


def names(variables: tuple[Variable, ...]) -> set[str]:
    """Of these."""
    return {variable.name for variable in variables}


def found(detected: Detected) -> tuple[set[str], set[str]]:
    """What is required, and what is optional."""
    return names(detected.required), names(detected.optional)
