"""An app behind a supervisor, and a load on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.reload.rig import COMMAND, App


@pytest.fixture
def app(make: Make, folder: Path) -> App:
    """The app of `echo_app` with the front that is chosen by itself, not started yet."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip("haproxy is not installed")
    return App(make("--no-services", "--app-dir", str(folder / "app"), *COMMAND), folder / "app")
