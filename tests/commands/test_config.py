"""`supervisor config`: what is shown, checked and written, as a user meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from supervisor.commands.config import main
from supervisor.commands.config_example import NAME, example
from supervisor.core.errors import ExitCode
from supervisor.core.settings import aliases, plain_fields, secret_fields, variable
from supervisor.core.settings.placeholder import PLACEHOLDER
from supervisor.store.text_files import parse_env

TOKEN = "s3cr3t-of-this-test"
ALIASES = {alias for name in plain_fields() for alias in aliases(name)}
REPOSITORY = Path(__file__).resolve().parents[2]
APPS = """
log_level = "debug"
[services.worker]
command = "work"
env = { PLAIN = "s3cr3t-of-this-test" }
[apps.api]
command = "api"
drain_seconds = 7
[apps.api.env]
required = ["STRIPE_KEY"]
optional = { API_TOKEN = "s3cr3t-of-this-test", LEVEL = "info" }
vars = { SESSION = { generate = true }, SMTP_URL = { kind = "url" } }
[apps.web]
command = "web"
port = 81
redis = false
"""


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine takes part; the app's folder is that of the test."""
    monkeypatch.setattr("supervisor.commands.load_settings.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.setattr("supervisor.commands.load_settings._SECRETS_DIR", str(tmp_path / "secrets"))
    for name in list(os.environ):
        if name.startswith("SUPERVISOR_") or name in (
            "PORT",
            "DATABASE_URL",
            "REDIS_URL",
            "APP_COMMAND",
            "DOCKER_HOST",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("APP_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What the command prints."""
    assert main(arguments) == code
    return capsys.readouterr().out


def test_show_is_a_settings_file_with_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    Path("supervisor.toml").write_text(APPS)
    text = said(capsys, "show")
    read = tomllib.loads(text)
    named = {*read, *(line.split()[1] for line in text.splitlines() if line.startswith("# "))}
    assert named >= set(plain_fields())
    assert read["log_level"] == "debug"
    assert read["apps"]["api"]["requires"] == []
    assert read["apps"]["web"]["redis"] is False
    assert read["services"]["worker"]["command"] == ["work"]


def test_show_says_where_each_value_came_from(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "4000")
    Path(".env").write_text("SUPERVISOR_STACK=shop")
    lines = said(capsys, "show", "--origin", "--set", "log_level=error").splitlines()
    assert "port = 4000  # PORT" in lines
    assert f'stack = "shop"  # {Path.cwd()}/.env: SUPERVISOR_STACK' in lines
    assert 'log_level = "error"  # --set log_level' in lines
    assert "overlap = true  # default" in lines
    assert "# acme_email is not set  # default" in lines


def test_show_as_json_has_value_origin_and_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "4000")
    document = json.loads(said(capsys, "show", "--json"))
    assert document["settings"]["port"] == {"value": 4000, "origin": "PORT", "variable": "SUPERVISOR_PORT"}
    assert document["settings"].keys() == set(plain_fields())
    assert document["apps"] == ["app"]


def test_show_of_an_app_has_what_holds_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    Path("supervisor.toml").write_text(APPS)
    lines = said(capsys, "show", "--app", "api", "--origin").splitlines()
    file = Path.cwd() / "supervisor.toml"
    assert f"drain_seconds = 7  # {file}: [apps.api]" in lines
    assert f'log_level = "debug"  # {file}' in lines
    assert "drain_seconds = 30" in said(capsys, "show", "--app", "web")
    assert main(["show", "--app", "ap"]) == ExitCode.USAGE
    assert "no such app; did you mean 'api'?; known: api, web" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--origin"], ["--json"], ["--app", "api"]])
def test_no_secret_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    Path("supervisor.toml").write_text(APPS)
    Path(".env").write_text(f"REDIS_URL=redis://:{TOKEN}@h\nAPI_KEY={TOKEN}")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{TOKEN}@h/d")
    monkeypatch.setenv("DOCKER_HOST", f"tcp://u:{TOKEN}@h:1")
    text = said(capsys, "show", *options)
    assert TOKEN not in text
    assert "***" in text
    assert '"info"' in text


def test_show_of_a_name_that_is_not_utf8_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "SUPERVISOR_STATE_DIR", "/srv/\udcff")
    assert "state_dir" in said(capsys, "show")


def test_check_of_good_settings_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPERVISOR_PROT", "1")
    assert said(capsys, "check") == (
        "the settings are good\nwarning: unknown setting SUPERVISOR_PROT; did you mean 'SUPERVISOR_PORT'?\n"
    )


def test_check_as_json_has_the_mistakes_one_by_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert json.loads(said(capsys, "check", "--json"))["ok"] is True
    monkeypatch.setenv("PORT", "x\n  - y")
    monkeypatch.setenv("SUPERVISOR_STACK", "A")
    document = json.loads(said(capsys, "check", "--json", code=ExitCode.CONFIGURATION))
    assert [line.split()[0] for line in document["mistakes"]] == ["PORT", "SUPERVISOR_STACK"]
    Path("supervisor.toml").write_text("=")
    (mistake,) = json.loads(said(capsys, "check", "--json", code=ExitCode.CONFIGURATION))["mistakes"]
    assert mistake.startswith("cannot read ")


def test_check_in_an_image_build_asks_for_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_FILE", "/run/secrets/database_url")
    monkeypatch.setenv("SECRETS_COMMAND", "no-such-vault read")
    assert said(capsys, "check", "--build") == "the settings are good\n"
    assert main(["check"]) == ExitCode.CONFIGURATION
    err = capsys.readouterr().err
    assert "DATABASE_URL_FILE names '/run/secrets/database_url'" in err
    assert "no program 'no-such-vault'" in err


@pytest.mark.parametrize("arguments", [[], ["shw"], ["show", "--orign"], ["check", "--set", "prot=1"]])
def test_a_usage_error_of_config_ends_with_64(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "usage: " in capsys.readouterr().err


# The example.


def test_the_example_of_this_repository_is_in_step_with_the_model() -> None:
    assert (REPOSITORY / NAME).read_text(encoding="utf-8") == example({}), "run scripts/docs"


def test_the_example_has_every_setting_once_and_sets_none() -> None:
    text = example({})
    assert parse_env(text) == {}
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    for name in set(plain_fields()) - {"app_dir", "stage"}:
        assert sum(line.startswith(f"{variable(name)}=") for line in lines) == 1
    assert f"SUPERVISOR_DATABASE_URL={PLACEHOLDER}" in lines
    assert max(map(len, text.splitlines())) <= 120


def test_every_line_of_the_example_is_good_as_it_stands_but_placeholders(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [line.removeprefix("# ") for line in example({}).splitlines() if line.startswith("# SUPERVISOR_")]
    kept = [line for line in lines if PLACEHOLDER not in line]
    assert len(lines) - len(kept) == len(secret_fields())
    Path(".env.production").write_text("\n".join(kept))
    assert said(capsys, "check") == "the settings are good\n"


def test_a_copied_example_is_refused_until_its_placeholders_are_gone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("supervisor.toml").write_text(APPS)
    assert said(capsys, "example") == f"{NAME}\n"
    text = Path(NAME).read_text()
    assert parse_env(text) == {"STRIPE_KEY": PLACEHOLDER, "SMTP_URL": PLACEHOLDER}
    Path(".env.production").write_text(text)
    assert main(["check"]) == ExitCode.CONFIGURATION
    err = capsys.readouterr().err
    assert f"{Path.cwd()}/.env.production: STRIPE_KEY is still the placeholder of the example (change-me)" in err
    Path(".env.production").write_text(text.replace(PLACEHOLDER, "x"))
    assert said(capsys, "check") == "the settings are good\n"


def test_the_example_is_written_beside_a_guide_which_is_made_anew(capsys: pytest.CaptureFixture[str]) -> None:
    Path("CONTAINERIZATION.md").write_text("# somebody else's\n")
    assert said(capsys, "example") == f"{NAME}\n"
    assert Path("CONTAINERIZATION.md").read_text() == "# somebody else's\n"
    assert said(capsys, "example", "--stdout") == Path(NAME).read_text()


# As a process.


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    more: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    command = [sys.executable, "-m", "supervisor", "config", *arguments]
    return subprocess.run(command, env={**kept, "APP_DIR": str(Path.cwd()), **environ}, **more)


def test_the_command_ends_with_78_and_the_report_on_standard_error() -> None:
    ended = run("check", PORT="none", REDIS_URL=f"redis://:{TOKEN}@h")
    assert (ended.returncode, ended.stdout) == (ExitCode.CONFIGURATION, "")
    assert ended.stderr.startswith("supervisor: cannot use the settings:\n  - PORT is 'none': ")
    assert TOKEN not in ended.stderr


def test_the_command_shows_the_settings() -> None:
    ended = run("show", "--origin", PORT="81")
    assert (ended.returncode, ended.stderr) == (ExitCode.OK, "")
    assert "port = 81  # PORT\n" in ended.stdout
