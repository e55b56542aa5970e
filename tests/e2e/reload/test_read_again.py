"""What a reload reads again: the environment file, `supervisor.toml`, migrations. What is invalid changes nothing."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.harness import request
from tests.e2e.reload.rig import App


def environ(app: App) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request(app.supervisor.port, "/environ")[1])
    return found


def assert_untouched(app: App, outcome: dict[str, Any], words: str) -> None:
    assert outcome["result"] == "rejected"
    assert words in outcome["reason"]
    assert environ(app)["SUPERVISOR_GENERATION"] == "1"
    assert len(app.supervisor.events("app.generation", state="starting")) == 1


def test_environment_file_is_read_again(app: App) -> None:
    file = app.folder / "app.env"
    file.write_text("TOLD=first\n")
    app.boot(SUPERVISOR_ENV_FILE=str(file))
    assert environ(app)["TOLD"] == "first"
    file.write_text("TOLD=second\n")
    assert app.reload()["result"] == "ok"
    assert environ(app)["TOLD"] == "second"


def test_broken_environment_file_rejects_the_reload(app: App) -> None:
    file = app.folder / "app.env"
    file.write_text("TOLD=first\n")
    app.boot(SUPERVISOR_ENV_FILE=str(file))
    file.write_text("TOLD=second\n=what is this\n")
    assert_untouched(app, app.reload(), "line 2 is not KEY=VALUE")
    file.unlink()
    assert_untouched(app, app.reload(), "app.env")
    assert environ(app)["TOLD"] == "first"


INVALID = {
    "app_start_seconds = ": "mend that place",
    "app_start_seconds = -1": "app_start_seconds",
    "no_such_setting = 1": "no_such_setting",
    'app_user = "no-such-user"': "no-such-user",
    'migrate_command = "false"': "exited with 1",
    'migrate_command = "echo cannot reach the moon; exit 4"': "cannot reach the moon",
}


def test_invalid_settings_and_failing_migrations_reject_the_reload(app: App) -> None:
    toml = app.folder / "supervisor.toml"
    toml.write_text("app_stop_seconds = 5\n")
    app.boot()
    app.release()
    for text, words in INVALID.items():
        toml.write_text(text + "\n")
        assert_untouched(app, app.reload(), words)
    toml.write_text("app_stop_seconds = 4\n")
    assert app.reload()["result"] == "ok"
    assert request(app.supervisor.port, "/echo")[1] == "2"


def test_settings_of_the_file_are_in_force_after_a_reload_and_others_are_told(app: App) -> None:
    toml = app.folder / "supervisor.toml"
    toml.write_text('migrate_command = "true"\n')
    app.boot()
    toml.write_text(
        'migrate_command = "touch migrated"\napp_command = "python -S echo_app.py again"\nhold_seconds = 3\n'
    )
    assert app.reload()["result"] == "ok"
    assert (app.folder / "migrated").exists()
    assert "SUPERVISOR_HOLD_SECONDS" in app.supervisor.log()
