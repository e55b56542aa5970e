"""The disk is full while the database is saved: what served goes on, and it works once there is room."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.harness import wait_until
from tests.e2e.releases.rig import serves
from tests.e2e.releases.stored import FIRST, StoredApp, app
from tests.e2e.releases.volumes import MIB, fill, volume
from tests.e2e.reload.rig import BothLoads, failures

__all__ = ["app"]


def test_disk_that_fills_while_the_database_is_saved_leaves_what_served(app: StoredApp) -> None:
    with volume(app, f"size={64 * MIB}") as place:
        app.boot()
        archive = app.release_with(FIRST, 1)
        with BothLoads(app) as load:
            for program in ("pg_dump", "pg_restore"):
                with app.held(program) as here, app.running("release", "apply", str(archive), "--json") as process:
                    wait_until("the database is saved", here.exists, limit=30)
                    filler = fill(place)
                    here.unlink()
                    out, error = process.communicate(timeout=60)
                    outcome: dict[str, Any] = json.loads(out)
                    assert outcome["result"] == "rejected", out + error
                    assert "is not applied: cannot save the database: " in outcome["reason"]
                    assert "bytes are missing on the disk" in outcome["reason"]
                    assert "make the volume larger" in outcome["reason"]
                    assert app.snapshots() == []
                    filler.unlink()
            reports = load.stop()
        assert failures(reports) == {}
        assert serves(app) == "1"
        assert app.query("SELECT to_regclass('notes') IS NULL") == "t"
        assert not list((app.place / "staging").iterdir())
        assert app.apply(archive)["result"] == "ok"
        assert serves(app) == "2"
        assert len(app.snapshots()) == 1
        assert app.history() == [("apply", "rejected"), ("apply", "rejected")]
