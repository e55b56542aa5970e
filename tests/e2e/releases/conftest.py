"""An app behind a supervisor that takes releases."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.releases.rig import ReleasedApp
from tests.e2e.reload.rig import COMMAND


@pytest.fixture
def app(make: Make, folder: Path) -> ReleasedApp:
    """The app of `echo_app`, not started yet; unsigned releases are accepted."""
    if shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin") is None:
        pytest.skip("haproxy is not installed")
    return ReleasedApp(make("--no-services", "--app-dir", str(folder / "app"), *COMMAND), folder / "app")
