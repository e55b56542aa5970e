"""SQL migrations of a release that are killed, slow or wrong, on a real Postgres: the old release serves on, and what
is written down is what the database says.
"""

from __future__ import annotations

from tests.e2e.harness import wait_until
from tests.e2e.releases.rig import serves
from tests.e2e.releases.stored import FIRST, StoredApp, app
from tests.e2e.reload.rig import BothLoads, failures

__all__ = ["app"]
SLOW = """ALTER TABLE notes ADD COLUMN slow text;
SELECT pg_sleep(CASE WHEN EXISTS (SELECT FROM notes WHERE id = 0) THEN 3600 ELSE 0 END);"""
TITLE = {**FIRST, "2_title.sql": "ALTER TABLE notes ADD COLUMN title text;"}
SECOND = {**TITLE, "3_slow.sql": SLOW}
BROKEN = {**SECOND, "3_slow.sql": "ALTER TABLE notes ADD COLUMN slow text;\nSELECT 1/0;"}
_COLUMNS = """SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
 WHERE attnum > 0 AND NOT attisdropped AND attrelid = 'notes'::regclass"""
_APPLIED = "SELECT string_agg(name, ',' ORDER BY name) FROM supervisor.migrations WHERE applied_at IS NOT NULL"
_SLEEPS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
_LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"


def hold(app: StoredApp) -> None:
    """The slow migration sleeps from now on, for as long as this note is there."""
    app.query("INSERT INTO notes VALUES (0)")


def let_go(app: StoredApp) -> None:
    app.query("DELETE FROM notes WHERE id = 0")


def stands(app: StoredApp, applied: dict[str, str], columns: str, level: int) -> None:
    """The ledger, the table and the state say the same, and nobody is in the way of the next migrations."""
    assert app.query(_APPLIED) == ",".join(applied)
    assert app.query(_COLUMNS) == columns
    assert app.state()["schema"][0] == level
    wait_until("the lock is free and nothing runs", lambda: app.query(_LOCKS) + app.query(_SLEEPS) == "00")
    assert not list((app.place / "staging").iterdir())


def test_kill_within_the_migrations_and_one_after_them_leave_the_old_release_and_the_next_try_works(
    app: StoredApp,
) -> None:
    app.boot()
    old = app.good_of(FIRST, 1)
    hold(app)
    archive = app.release_with(SECOND, 2, boot_seconds=1)
    with app.running("release", "apply", str(archive)) as process:
        wait_until("it is half-way", lambda: app.query(_SLEEPS) == "1", limit=30)
        app.supervisor.kill()
        process.communicate(timeout=30)
    app.boot()
    assert (serves(app), app.state()["active"]) == ("2", old)
    stands(app, TITLE, "id,body,title", 1)
    assert app.history() == [("apply", "ok"), ("apply", "aborted")]

    let_go(app)
    with app.running("release", "apply", str(archive)) as process:
        app.wait_state(2, "starting")
        app.supervisor.kill()
        process.communicate(timeout=30)
    app.boot()
    assert (serves(app), app.state()["active"]) == ("2", old)
    stands(app, SECOND, "id,body,title,slow", 2)
    assert app.history()[1:] == [("apply", "aborted")] * 2

    assert app.apply(archive)["result"] == "ok"
    assert app.run("release", "confirm").code == 0
    assert serves(app) == "3"
    stands(app, SECOND, "id,body,title,slow", 2)
    assert app.history()[3:] == [("apply", "ok")]


def test_migrations_that_are_too_slow_or_fail_half_way_leave_the_old_release_and_the_next_ones_work(
    app: StoredApp,
) -> None:
    app.boot(SUPERVISOR_MIGRATE_SECONDS="2")
    app.good_of(FIRST, 1)
    broken, archive = app.release_with(BROKEN, 3), app.release_with(SECOND, 2)
    with BothLoads(app) as load:
        failed = app.apply(broken)
        stands(app, TITLE, "id,body,title", 1)
        hold(app)
        slow = app.apply(archive)
        stands(app, TITLE, "id,body,title", 1)
        let_go(app)
        works = app.apply(archive)
        reports = load.stop()
    assert failures(reports) == {}
    assert (failed["result"], slow["result"], works["result"]) == ("rejected", "rejected", "ok")
    for outcome, why in ((failed, "division by zero"), (slow, "the deadline of 2 s passed while running")):
        for part in (why, "3_slow.sql", "the database of before is saved in"):
            assert part in outcome["reason"]
    assert app.run("release", "confirm").code == 0
    assert serves(app) == "4"
    stands(app, SECOND, "id,body,title,slow", 2)
    assert app.history() == [("apply", "ok"), ("apply", "rejected"), ("apply", "rejected"), ("apply", "ok")]
