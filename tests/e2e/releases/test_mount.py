"""Apps with fixed paths: a release is shown at the app's own folder, or refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Make
from tests.e2e.releases.rig import ReleasedApp
from tests.e2e.releases.test_apply import serves
from tests.e2e.reload.clients import SlowRequest


@pytest.fixture
def app(make: Make, folder: Path) -> ReleasedApp:
    """An app that is started by its whole path, with a folder that releases do not bring."""
    place = folder / "app"
    app = ReleasedApp(
        make("--no-services", "--app-dir", str(place), "--", "python", "-S", f"{place}/echo_app.py"), place
    )
    (place / "lib").mkdir()
    (place / "lib" / "data").write_text("of the image")
    return app


def seen_by(pid: int, path: Path) -> str:
    """A file as a process sees it."""
    command = ["nsenter", "-t", str(pid), "-m", "cat", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout


def test_release_is_shown_at_the_app_s_own_folder_to_its_generation_only(app: ReleasedApp) -> None:
    app.boot(SUPERVISOR_RELEASE_MOUNT="true")
    own = (app.folder / "behaviour.json").read_text()
    with SlowRequest(app.url, 2) as slow:
        assert app.apply(app.built())["result"] == "ok"
        assert serves(app) == "2"
        old, new = app.pid_of(1), app.pid_of(2)
        assert seen_by(old, app.folder / "behaviour.json") == own == (app.folder / "behaviour.json").read_text()
        assert seen_by(new, app.folder / "behaviour.json") != own
        assert seen_by(new, app.folder / "lib" / "data") == "of the image"
        assert Path(f"/proc/{new}/cwd").readlink() == app.folder
        assert slow.answer()[0] == 200
    assert app.run("release", "confirm").code == 0
    app.supervisor.kill()
    app.boot()
    assert serves(app) == "2", "after a kill as well"
    assert app.run("release", "rollback").code == 0
    assert serves(app) == "1"


def test_command_with_the_image_s_own_path_is_refused_without_it(app: ReleasedApp) -> None:
    app.boot()
    outcome = app.apply(app.built())
    assert outcome["result"] == "rejected"
    assert "SUPERVISOR_RELEASE_MOUNT=true" in outcome["reason"]
    assert serves(app) == "1"


def test_where_nothing_can_be_mounted_the_start_is_refused(app: ReleasedApp) -> None:
    app.supervisor.environ["SUPERVISOR_RELEASE_MOUNT"] = "true"
    app.supervisor.prefix = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", "--"]
    assert app.supervisor.start().wait() == 78
    assert "as SUPERVISOR_RELEASE_MOUNT asks for" in app.supervisor.log()
    assert "CAP_SYS_ADMIN" in app.supervisor.log()
