"""`supervisor env check`: what each app would get and from where, as a user meets it; never a value."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from supervisor.commands.env_check import Compared, compare
from supervisor.core.secret import Secret
from supervisor.core.settings import AppEnv, AppVariable
from supervisor.store.app_secrets import AppSecrets

TOML = """
[bindings]
NOTES_URL = "{public_url}/notes"
[apps.api]
command = "python app.py"
dir = "api"
port = 3001
[apps.api.env]
required = ["DATABASE_URL", "STRIPE_KEY"]
optional = { LEVEL = "s3cr3t-default" }
[apps.api.env.vars.SESSION]
generate = true
min_length = 32
give = "file"
[apps.api.env.vars.SMTP_URL]
kind = "url"
[apps.web]
command = "serve"
port = 3000
database = false
[apps.web.env]
required = ["DATABASE_URL"]
"""
APP = """
import os
os.environ["DATABASE_URL"], os.environ["SESSION_FILE"], os.environ["SMTP_URL"], os.environ["EXTRA"]
os.environ.get("LEVEL"), os.environ.get("NOTES_URL"), os.environ.get("HOST")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "app.py").write_text(APP)
    (tmp_path / "supervisor.toml").write_text(TOML)
    return tmp_path


def check(folder: Path, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "SUPERVISOR_STATE_DIR": f"{folder}/state",
        "SUPERVISOR_SECRETS_DIR": f"{folder}/none",
        **variables,
    }
    command = [sys.executable, "-m", "supervisor", "env", "check", "--config", f"{folder}/supervisor.toml", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)
    assert "s3cr3t" not in done.stdout + done.stderr
    return done


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_variable_is_told_with_where_it_comes_from_and_what_is_missing_with_the_commands(folder: Path) -> None:
    AppSecrets(folder_of_secrets(folder), "api").set("STRIPE_KEY", Secret("s3cr3t-set"))
    done = check(folder, SMTP_URL="s3cr3t-and-no-url")
    assert done.returncode == 78
    api, web = done.stdout.split("app web")
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in api.splitlines()[1:]}
    assert rows["DATABASE_URL"] == "computed at the start"
    assert rows["STRIPE_KEY"] == "set by `supervisor secrets set`"
    assert rows["LEVEL"] == "the declared default"
    assert rows["SESSION"] == "generated, in the file that SESSION_FILE names"
    assert rows["SMTP_URL"] == "given to us; wrong: it is not a URL with scheme and host"
    assert "NOTES_URL" in rows["by"]
    assert web.split()[:2] == ["DATABASE_URL", "missing"]
    assert done.stderr == (
        "supervisor: cannot start the apps: variables that they need are missing or wrong\n"
        "  - app 'api': SMTP_URL is not a URL with scheme and host\n"
        "  - app 'web': DATABASE_URL is missing\n"
        "  set them (each value is asked for), or give them in the container's environment, then start again:\n"
        "    supervisor secrets set api SMTP_URL\n"
        "    supervisor secrets set web DATABASE_URL\n"
    )


def folder_of_secrets(folder: Path) -> Path:
    made = folder / "state" / "secrets"
    made.mkdir(parents=True)
    return made


def test_what_is_right_ends_with_0_and_nothing_is_changed(folder: Path) -> None:
    text = TOML.replace('required = ["DATABASE_URL"]', "").replace('"STRIPE_KEY"', "")
    (folder / "supervisor.toml").write_text(text)
    done = check(folder, "--json", SMTP_URL="smtp://s3cr3t@mail")
    assert (done.returncode, done.stderr) == (0, "")
    found = document(done)
    assert (found["ok"], found["message"]) == (True, None)
    variables = {one["name"]: (one["from"], one["give"]) for one in found["apps"][0]["variables"]}
    assert variables["SESSION"] == ("generated", "file")
    assert variables["DATABASE_URL"] == ("computed", "env")
    assert variables["SMTP_URL"] == ("external", "env")
    assert not (folder / "state").exists()


def test_without_services_their_urls_are_missing(folder: Path) -> None:
    found = document(check(folder, "--json", "--no-services"))
    assert [app["missing"] for app in found["apps"]] == [["DATABASE_URL", "STRIPE_KEY", "SMTP_URL"], ["DATABASE_URL"]]
    assert found["message"].endswith("\n    supervisor secrets set web DATABASE_URL")


def test_detect_tells_what_is_read_and_not_declared_and_the_other_way_round(folder: Path) -> None:
    text = TOML.replace('required = ["DATABASE_URL"]', "")
    (folder / "supervisor.toml").write_text(text)
    done = check(folder, "--json", "--detect", SMTP_URL="smtp://mail", STRIPE_KEY="s3cr3t")
    assert done.returncode == 1, done.stderr
    api, web = (app["detected"] for app in document(done)["apps"])
    assert api == {"complete": True, "why": None, "not_declared": ["EXTRA"], "never_read": ["STRIPE_KEY"]}
    assert not web["complete"]
    assert "there is no program 'serve'" in web["why"]


def test_of_what_was_seen_in_part_nothing_is_said_to_be_never_read() -> None:
    env = AppEnv(required=("A",), vars={"B": AppVariable(give="file")})
    assert compare({"B_FILE", "C"}, env, set()) == Compared(("C",), ("A",))
    assert compare({"B_FILE", "C"}, env, {"C"}, "too slow") == Compared((), (), "too slow")
    assert compare({"B"}, env, set()) == Compared((), ("A",)), "the app may take either"


def test_a_wrong_setting_is_told_as_the_start_tells_it(folder: Path) -> None:
    done = check(folder, "--set", "port=0")
    assert done.returncode == 78
    assert "port" in done.stderr
    assert check(folder, "--bogus").returncode == 64
