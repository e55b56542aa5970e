"""A release that has links into the image's own tree."""

from __future__ import annotations

from tests.e2e.harness import request
from tests.e2e.releases.rig import ReleasedApp


def test_release_with_links_serves_after_a_restart_though_the_trigger_was_touched(app: ReleasedApp) -> None:
    (app.folder / "assets").mkdir()
    (app.folder / "assets" / "logo.svg").write_text("<svg/>")
    app.boot()
    app.good()
    assert (app.place / "current" / "assets" / "logo.svg").read_text() == "<svg/>"
    (app.folder / ".reload-trigger").touch()
    (app.folder / "assets" / "uploaded.svg").write_text("<svg/>")
    assert app.supervisor.stop() == 0
    app.boot()
    assert request(app.supervisor.port, "/echo") == (200, "2")
