"""Who asks for a reload, how often, and when: few reloads come of many requests, and the last code on disk serves."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.e2e.harness import request, wait_until
from tests.e2e.reload.rig import App


def served(app: App) -> str:
    return request(app.supervisor.port, "/echo")[1]


def wait_idle(app: App) -> int:
    """Until every reload that was begun is through; how many there were."""

    def through() -> int:
        asked = app.supervisor.events("reload.requested", merged=False)
        finished = app.supervisor.events("reload.finished")
        return len(finished) if len(asked) == len(finished) else 0

    return int(wait_until("all reloads are through", through, limit=30))


def generations(app: App) -> int:
    return len(app.supervisor.events("app.generation", state="starting"))


def test_hundred_hups_make_few_reloads_and_the_last_code_serves(app: App) -> None:
    app.boot()
    for number in range(100):
        if number % 10 == 0:
            app.release()
        app.supervisor.send(signal.SIGHUP)
    wait_until("a reload is finished", lambda: app.supervisor.events("reload.finished"), limit=30)
    assert wait_idle(app) <= 3
    assert generations(app) <= 8
    assert served(app) == str(app.version)


def touch(path: Path) -> None:
    path.touch()
    os.utime(path)


def test_hundred_touches_make_few_reloads_and_the_last_code_serves(app: App) -> None:
    app.boot()
    for number in range(100):
        if number % 10 == 0:
            app.release()
        touch(app.folder / ".reload-trigger")
    wait_until("a reload is finished", lambda: app.supervisor.events("reload.finished"), limit=30)
    assert wait_idle(app) <= 3
    assert served(app) == str(app.version)


def test_a_touch_joins_a_signal_that_waits_for_its_turn(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="2")
    app.supervisor.send(signal.SIGHUP)
    app.supervisor.wait_event("app.generation", generation=2, state="serving")
    app.supervisor.send(signal.SIGHUP)
    app.supervisor.wait_event("reload.requested", after=1)
    touch(app.folder / ".reload-trigger")
    asked = app.supervisor.wait_event("reload.requested", source="file")
    assert asked["merged"] is True
    assert wait_idle(app) == 2


def test_trigger_file_works_when_it_is_replaced_removed_and_made_again(app: App) -> None:
    app.boot()
    trigger = app.folder / ".reload-trigger"

    def expect(version: int) -> None:
        wait_until(f"version {version} serves", lambda: served(app) == str(version), limit=20)
        wait_idle(app)

    version = app.release()
    touch(trigger)
    expect(version)
    version = app.release()
    other = app.folder / "trigger.new"
    other.write_text("moved")
    other.rename(trigger)
    expect(version)
    trigger.unlink()
    version = app.release()
    touch(trigger)
    expect(version)
    assert all(event["result"] == "ok" for event in app.supervisor.events("reload.finished"))
    assert {event["source"] for event in app.supervisor.events("reload.finished")} == {"file"}


def test_hup_while_new_code_is_proved_begins_it_anew_three_times_at_most(app: App) -> None:
    app.boot()
    for generation in (2, 3, 4):
        app.release(boot_seconds=1.5)
        app.supervisor.send(signal.SIGHUP)
        app.wait_state(generation, "starting")
    app.release()
    app.supervisor.send(signal.SIGHUP)
    app.wait_state(5, "serving")
    assert wait_idle(app) == 2, "the one in hand, and one more"
    assert generations(app) == 5
    assert served(app) == str(app.version)
    assert not app.supervisor.events("app.generation", generation=2, state="serving")
    app.wait_gone(app.pid_of(2), app.pid_of(3))


def test_hups_in_the_bake_make_one_more_reload_after_it(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1")
    app.release()
    app.supervisor.send(signal.SIGHUP)
    app.wait_state(2, "serving")
    app.release()
    for count in range(1, 4):
        app.supervisor.send(signal.SIGHUP)
        app.supervisor.wait_event("reload.requested", after=count, limit=10)
    app.wait_state(3, "serving")
    assert wait_idle(app) == 2
    assert generations(app) == 3
    assert served(app) == str(app.version)


def test_a_caller_gets_the_outcome_of_a_reload_that_read_the_disk_after_it_asked(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="1")
    app.release()
    with app.reloading() as first:
        app.wait_state(2, "serving")
        app.release(exit=3)
        second = app.reload()
    assert first["result"] == "ok"
    assert second["result"] == "rejected"
    assert "exited with 3" in second["reason"]


def test_reload_by_the_command_line_tells_its_outcome(app: App) -> None:
    app.boot()
    app.release()
    told = app.supervisor.cli("reload", "--no-wait")
    assert told.returncode == 0, told.stderr
    wait_until("it serves", lambda: served(app) == "2", limit=20)
    app.supervisor.wait_event("reload.finished")
    app.release(exit=1)
    told = app.supervisor.cli("reload")
    assert told.returncode == 1
    assert "exited with 1" in told.stderr
    assert served(app) == "2"
