"""Settings: where they come from, which source wins, and what a reader is told about every mistake."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from supervisor.commands.load_settings import load
from supervisor.commands.run import arguments_of
from supervisor.core.errors import ConfigurationError, ExitCode
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded, Settings, aliases, parse_command, variable

TOKEN = "s3cr3t-of-this-test"


@pytest.fixture(autouse=True)
def _no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor.toml of the machine must not take part."""
    monkeypatch.setattr("supervisor.commands.load_settings.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.chdir(tmp_path)


def read(
    environ: Mapping[str, str] | None = None,
    *,
    toml: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    folder: Path | None = None,
) -> Loaded:
    """Settings from these sources alone; `toml` is written to `folder` (default: the working folder)."""
    config = None
    if toml is not None:
        config = (folder or Path.cwd()) / "supervisor.toml"
        config.write_text(toml)
    return load(arguments or {}, config=config, environ=environ or {})


def mistakes(environ: Mapping[str, str] | None = None, **sources: Any) -> list[str]:
    """The lines of the report, without their dashes."""
    with pytest.raises(ConfigurationError) as caught:
        read(environ, **sources)
    head, *lines = str(caught.value).splitlines()
    assert head == "cannot use the settings:"
    assert all(line.startswith("  - ") for line in lines)
    return [line.removeprefix("  - ") for line in lines]


# Which source wins.


def test_a_setting_has_its_default_where_nobody_says_anything() -> None:
    loaded = read()
    assert loaded.settings.port == 3000
    assert loaded.origins == {}


def test_the_file_wins_over_the_default() -> None:
    assert read(toml="port = 3001").settings.port == 3001


def test_the_environment_wins_over_the_file() -> None:
    assert read({"SUPERVISOR_PORT": "3002"}, toml="port = 3001").settings.port == 3002


def test_the_command_line_wins_over_the_environment() -> None:
    loaded = read({"SUPERVISOR_PORT": "3002"}, toml="port = 3001", arguments={"port": "3003"})
    assert loaded.settings.port == 3003
    assert loaded.origins["port"] == "--port"


def test_a_secret_file_wins_over_the_toml_file(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://from-file\n")
    loaded = read({"REDIS_URL_FILE": str(tmp_path / "url")}, toml='redis_url = "redis://from-toml"')
    assert loaded.settings.redis_url == Secret("redis://from-file")


def test_an_empty_variable_counts_as_not_set() -> None:
    assert read({"SUPERVISOR_PORT": "", "PORT": "", "DATABASE_URL": ""}, toml="port = 3001").settings.port == 3001


# Aliases.


@pytest.mark.parametrize(
    ("alias", "field", "text", "value"),
    [
        ("APP_COMMAND", "app_command", "node server.js", ("node", "server.js")),
        ("APP_DIR", "app_dir", "/srv", Path("/srv")),
        ("APP_HOST", "app_host", "example.org", "example.org"),
        ("PORT", "port", "4000", 4000),
        ("DATABASE_URL", "database_url", "postgresql://a:b@c/d", Secret("postgresql://a:b@c/d")),
        ("REDIS_URL", "redis_url", "redis://c", Secret("redis://c")),
        ("MIGRATE_COMMAND", "migrate_command", "prisma migrate deploy", ("prisma", "migrate", "deploy")),
        ("SWARM_INIT", "swarm_init", "never", "never"),
        ("DOCKER_HOST", "docker_host", "tcp://1.2.3.4:2376", "tcp://1.2.3.4:2376"),
        ("DOCKER_CONTEXT", "docker_context", "there", "there"),
        ("DOCKER_TLS_VERIFY", "docker_tls_verify", "1", True),
        ("DOCKER_CERT_PATH", "docker_cert_path", "/certs", Path("/certs")),
    ],
)
def test_an_alias_sets_its_setting(alias: str, field: str, text: str, value: object) -> None:
    loaded = read({alias: text})
    assert getattr(loaded.settings, field) == value
    assert loaded.origins[field] == alias
    assert loaded.warnings == ()


ALIASED = [(field, alias) for field in Settings.model_fields for alias in aliases(field)]


@pytest.mark.parametrize(("field", "alias"), ALIASED)
def test_the_variable_itself_wins_over_its_alias(field: str, alias: str) -> None:
    values = {
        "port": ("1", "2"),
        "docker_tls_verify": ("1", "0"),
        "swarm_init": ("never", "auto"),
        "secrets_command": ("true", "false"),
        "swarm_address_pool": ("10.7.0.0/16", "10.8.0.0/16"),
    }
    ours, other = values.get(field, ("ours", "other"))
    both = read({variable(field): ours, alias: other}).settings
    alone = read({variable(field): ours}).settings
    assert getattr(both, field) == getattr(alone, field)


def test_every_alias_the_contract_names_is_there() -> None:
    named = {"APP_COMMAND", "APP_DIR", "APP_HOST", "PORT", "DATABASE_URL", "REDIS_URL", "MIGRATE_COMMAND", "SWARM_INIT"}
    assert named <= {alias for _, alias in ALIASED}


# Secrets.


def secret_sources(tmp_path: Path) -> dict[str, dict[str, str]]:
    path = tmp_path / "secret"
    path.write_text(f"postgresql://u:{TOKEN}@h/d\n")
    return {
        "variable": {"SUPERVISOR_DATABASE_URL": f"postgresql://u:{TOKEN}@h/d"},
        "alias": {"DATABASE_URL": f"postgresql://u:{TOKEN}@h/d"},
        "file": {"SUPERVISOR_DATABASE_URL_FILE": str(path)},
        "file of the alias": {"DATABASE_URL_FILE": str(path)},
    }


@pytest.mark.parametrize("source", ["variable", "alias", "file", "file of the alias"])
def test_a_secret_shows_in_no_text_of_the_settings(tmp_path: Path, source: str) -> None:
    loaded = read(secret_sources(tmp_path)[source])
    assert loaded.settings.database_url is not None
    assert loaded.settings.database_url.reveal() == f"postgresql://u:{TOKEN}@h/d"
    for text in (repr(loaded), str(loaded), repr(loaded.settings), str(loaded.settings), f"{loaded.settings}"):
        assert TOKEN not in text
    assert "database_url=***" in repr(loaded.settings)


@pytest.mark.parametrize("source", ["variable", "alias", "file", "file of the alias"])
def test_a_secret_shows_in_no_error(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read({**secret_sources(tmp_path)[source], "PORT": "none"})
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


def test_a_secret_of_a_wrong_type_is_masked_in_its_own_mistake() -> None:
    (line,) = mistakes(toml=f'redis_url = ["{TOKEN}"]')
    assert line.endswith("supervisor.toml: redis_url is '***': give a string")


def test_a_value_in_a_services_environment_is_not_shown() -> None:
    toml = '[services.worker]\ncommand = "true"\n[services.worker.env]\nTOKEN = 420042'
    (line,) = mistakes(toml=toml)
    assert "[services.worker]: env.TOKEN: " in line
    assert "420042" not in line
    good = read(toml=toml.replace("420042", f'"{TOKEN}"'))
    assert good.settings.user_services["worker"].env == {"TOKEN": TOKEN}
    assert TOKEN not in repr(good)


@pytest.mark.parametrize("name", ["DATABASE_URL", "SUPERVISOR_DATABASE_URL", "SUPERVISOR_WEBHOOK_URL"])
def test_a_variable_beside_its_file_is_a_mistake(tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_text("postgresql://h")
    lines = mistakes({name: "postgresql://h", f"{name}_FILE": str(tmp_path / "f"), "PORT": "0"})
    assert lines[0] == f"{name} and {name}_FILE are both set: it is not known which is meant; unset one of them"
    assert lines[1].startswith("PORT is '0'")


def test_the_variable_wins_over_the_file_of_its_alias(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("redis://file")
    loaded = read({"SUPERVISOR_REDIS_URL": "redis://variable", "REDIS_URL_FILE": str(tmp_path / "f")})
    assert loaded.settings.redis_url == Secret("redis://variable")


def test_the_file_of_the_variable_wins_over_the_alias_and_its_file(tmp_path: Path) -> None:
    for name in ("ours", "other"):
        (tmp_path / name).write_text(f"redis://{name}")
    ours = {"SUPERVISOR_REDIS_URL_FILE": str(tmp_path / "ours")}
    for rest in ({"REDIS_URL": "redis://alias"}, {"REDIS_URL_FILE": str(tmp_path / "other")}):
        assert read({**ours, **rest}).settings.redis_url == Secret("redis://ours")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file or directory; check its path and mode"),
        (b"", "it is empty; write the value into it"),
        (b" \n", "it is empty; write the value into it"),
        (b"\xff\xfe", "it is not UTF-8 text; save it as such"),
    ],
)
def test_a_secret_file_that_cannot_be_used_stands_in_the_report(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "url"
    if content is not None:
        path.write_bytes(content)
    lines = mistakes({"DATABASE_URL_FILE": str(path), "SUPERVISOR_APP_RESTART": "never"})
    assert lines[0] == f"DATABASE_URL_FILE names {str(path)!r}: {why}"
    assert len(lines) == 2


def test_a_password_with_newline_at_its_end_is_read_without_it(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("redis://:a b@h\n")
    assert read({"REDIS_URL_FILE": str(tmp_path / "url")}).settings.redis_url == Secret("redis://:a b@h")


# Mistakes.


def test_every_mistake_is_in_one_report_with_its_variable_value_and_what_is_allowed() -> None:
    lines = mistakes(
        {"PORT": "99999", "SUPERVISOR_APP_RESTART": "maybe", "SUPERVISOR_STACK": "Not a name"},
        toml='log_level = "loud"\nprot = 3\nboot_seconds = 0',
        arguments={"mode": "swarm", "hook_seconds": "soon"},
    )
    report = "\n".join(lines)
    assert len(lines) == 8
    assert "PORT is '99999': input should be less than or equal to 65535" in lines
    assert "SUPERVISOR_APP_RESTART is 'maybe': input should be 'no', 'on-failure' or 'always'" in lines
    assert "SUPERVISOR_STACK is 'Not a name': string should match pattern" in report
    assert "supervisor.toml: log_level is 'loud': input should be 'debug', 'info', 'warning' or 'error'" in report
    assert "supervisor.toml: boot_seconds is 0: input should be greater than 0" in report
    assert "supervisor.toml: unknown key 'prot'; did you mean 'port'?" in report
    assert "--mode is 'swarm': input should be 'auto', 'dind', 'socket', 'remote', 'embedded' or 'none'" in lines
    assert "--set hook_seconds is 'soon': input should be a valid number" in report


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({"toml": "app_command = 5"}, "supervisor.toml: app_command is 5: give a string or a list of strings"),
        ({"toml": 'app_command = " "'}, "it is empty; give a command, or leave the setting out"),
        ({"toml": "app_command = []"}, "it is empty; give a command, or leave the setting out"),
        ({"environ": {"APP_COMMAND": "echo 'a"}}, 'APP_COMMAND is "echo \'a": unbalanced quotes: No closing quotation'),
        ({"environ": {"SUPERVISOR_SERVICES": "[1"}}, "SUPERVISOR_SERVICES is '[1': not a JSON list: "),
        ({"toml": 'tls_cert_file = "/c"'}, "tls_cert_file and tls_key_file go together: set both or neither"),
        (
            {"environ": {"SUPERVISOR_SERVICES": "redis,mysql"}},
            "SUPERVISOR_SERVICES: no service 'mysql'; there are postgres, redis, traefik",
        ),
        ({"environ": {"PORT": "80", "SUPERVISOR_HTTP_PORT": "80"}}, "port and http_port are both 80; give each a port"),
        ({"toml": "https_port = 3000"}, "port and https_port are both 3000; give each a port of its own"),
        ({"toml": "redis_port = 9\npostgres_port = 9"}, "postgres_port and redis_port are both 9; give each a port"),
        ({"environ": {"SUPERVISOR_OPTIONAL_SERVICES": "reddis"}}, "no service 'reddis'; did you mean 'redis'?"),
        ({"environ": {"SUPERVISOR_TRAEFIK_DASHBOARD": "perhaps"}}, "input should be a valid boolean"),
        (
            {"environ": {"SUPERVISOR_APP_HEALTH_PATH": "health"}},
            "SUPERVISOR_APP_HEALTH_PATH is 'health': string should",
        ),
        ({"environ": {"SUPERVISOR_HOOK_SECONDS": "nan"}}, "SUPERVISOR_HOOK_SECONDS is 'nan': input should be"),
    ],
)
def test_a_mistake_says_what_is_wrong(sources: dict[str, Any], expected: str) -> None:
    (line,) = mistakes(sources.get("environ"), toml=sources.get("toml"))
    assert expected in line


def test_mistakes_between_settings_stand_beside_those_in_one() -> None:
    toml = 'log_level = "loud"\ntls_key_file = "/k"\nhttp_port = 3000\n[services.w]\ncommand = "a"\nwants = ["x"]'
    report = "\n".join(mistakes({"SUPERVISOR_OPTIONAL_SERVICES": "y"}, toml=toml))
    for part in ("'loud'", "go together", "port and http_port are both 3000", "no service 'x'", "no service 'y'"):
        assert part in report


def test_a_mistake_in_a_file_of_another_name_has_its_key_too(tmp_path: Path) -> None:
    (tmp_path / "stack.conf").write_text("port = 0")
    with pytest.raises(ConfigurationError, match=r"stack\.conf: port is 0: input should be greater"):
        load({}, config=tmp_path / "stack.conf", environ={})


def test_a_setting_that_is_wrong_by_itself_makes_no_other_look_wrong() -> None:
    lines = mistakes(toml='optional_services = ["w"]\n[services.w]\ncommand = 5')
    assert lines == [line for line in lines if "command is 5" in line]


def test_the_free_choice_of_two_loopback_ports_is_no_clash() -> None:
    assert read(toml="redis_port = 0\npostgres_port = 0").settings.redis_port == 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SUPERVISOR_APP_HEALTHPATH", "SUPERVISOR_APP_HEALTH_PATH"),
        ("SUPERVISOR_PORTS", "SUPERVISOR_PORT"),
        ("SUPERVISOR_PORT_FIL", "SUPERVISOR_PORT"),
    ],
)
def test_an_unknown_variable_of_ours_is_a_warning_with_the_one_that_was_meant(name: str, meant: str) -> None:
    assert read({name: "1"}).warnings == (f"unknown setting {name}; did you mean {meant!r}?",)


def test_variables_that_others_set_under_our_prefix_are_no_warning() -> None:
    assert (
        read({"SUPERVISOR_SPAWN": "a/b/c", "SUPERVISOR_GENERATION": "1", "SUPERVISOR_PROCESS_NAME": "x"}).warnings == ()
    )


def test_settings_cannot_be_changed_after_they_were_read() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read().settings.port = 1


# Services of the user's own.


def test_a_services_table_becomes_a_service() -> None:
    toml = """
    [services.worker]
    command = "python worker.py"
    requires = ["postgres"]
    wants = ["mailer"]
    health_tcp = "127.0.0.1:5000"
    retries = 3
    [services.mailer]
    command = ["mailer", "--port", "25"]
    optional = true
    """
    services = read(toml=toml).settings.user_services
    assert services["worker"].command == ("python", "worker.py")
    assert services["worker"].requires == ("postgres",)
    assert services["mailer"].command == ("mailer", "--port", "25")
    assert services["mailer"].optional


def test_a_list_of_services_and_a_table_of_services_are_two_settings() -> None:
    assert read(toml='services = ["redis"]').settings.services == ("redis",)
    both = read({"SUPERVISOR_SERVICES": "redis"}, toml='[services.worker]\ncommand = "true"').settings
    assert both.services == ("redis",)
    assert list(both.user_services) == ["worker"]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            '[services.w]\ncommand = "a"\nhealthtcp = "b"',
            "[services.w]: unknown key 'healthtcp'; did you mean 'health_tcp'?",
        ),
        ('[services.w]\ncwd = "/"', "[services.w]: key 'command' is missing"),
        ('[services.w]\ncommand = "a"\nretries = -1', "[services.w]: retries is -1: input should be greater than or"),
        ('[services."No Name"]\ncommand = "a"', "the name of a service is 1 to 63 of a-z 0-9 _ . -, not 'No Name'"),
        ('[services.redis]\ncommand = "a"', "[services.redis] is the name of a built-in service; choose another"),
        (
            '[services.w]\ncommand = "a"\nrequires = ["postgre"]',
            "[services.w]: no service 'postgre'; did you mean 'postgres'?",
        ),
        (
            '[services.w]\ncommand = "a"\nhealth_tcp = "h:1"\nhealth_http = "http://h"',
            "[services.w]: give one of health_http, health_tcp and health_command",
        ),
    ],
)
def test_a_mistake_in_a_services_table_names_the_table(table: str, expected: str) -> None:
    (line,) = mistakes(toml=table)
    assert expected in line


# Which file, and the app's folder.


def test_the_app_is_beside_the_file_that_was_named(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    assert read(toml="", folder=tmp_path / "app").settings.app_dir == tmp_path / "app"


def test_an_app_folder_in_the_file_is_meant_from_the_files_folder(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert read(toml='app_dir = "../app"', folder=tmp_path / "etc").settings.app_dir == tmp_path / "app"


def test_the_file_in_the_apps_folder_is_read_by_itself(tmp_path: Path) -> None:
    (tmp_path / "supervisor.toml").write_text("port = 3005")
    assert read({"APP_DIR": str(tmp_path)}).settings.port == 3005
    assert read(arguments={"app_dir": str(tmp_path)}).settings.port == 3005


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"there is no file .*; check --config"):
        load({}, config=tmp_path / "nowhere.toml", environ={})
    with pytest.raises(ConfigurationError, match=r"there is no file .*; check SUPERVISOR_CONFIG"):
        load({}, environ={"SUPERVISOR_CONFIG": str(tmp_path / "nowhere.toml")})


# Commands and lists as text.


@pytest.mark.parametrize(
    ("text", "argv"),
    [
        ("node 'my app.js'", ("node", "my app.js")),
        ("a && b", ("/bin/sh", "-c", "a && b")),
        ("echo $HOME", ("/bin/sh", "-c", "echo $HOME")),
        (["a", "b c"], ("a", "b c")),
    ],
)
def test_a_command_is_split_as_a_shell_would(text: object, argv: tuple[str, ...]) -> None:
    assert parse_command(text) == argv


@pytest.mark.parametrize("text", ["redis,traefik", "redis\ntraefik\n", ' ["redis", "traefik"]'])
def test_a_list_may_be_words_lines_or_json(text: str) -> None:
    assert read({"SUPERVISOR_SERVICES": text}).settings.services == ("redis", "traefik")


def test_hooks_keep_their_commas() -> None:
    hooks = read({"SUPERVISOR_POST_START_HOOKS": "notify a,b\n\nhttps://h/x?a=1,2"}).settings.post_start_hooks
    assert hooks == ("notify a,b", "https://h/x?a=1,2")


def test_the_command_line_takes_any_setting_and_a_command() -> None:
    given, config = arguments_of(
        ["--port", "4", "--set", "SUPERVISOR_HTTP_PORT=81", "--set", "log-level=debug", "--", "a", "--b"]
    )
    assert config is None
    assert given == {"port": "4", "http_port": "81", "log_level": "debug", "app_command": ["a", "--b"]}


# The whole command, as a user meets it.


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-m", "supervisor", "run", *arguments],
        env={**kept, **(environ or {})},
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_broken_file_ends_the_run_with_78_and_its_line_and_column(tmp_path: Path) -> None:
    config = tmp_path / "supervisor.toml"
    config.write_text('port = 3001\nlog_level = "info\n')
    ended = run("--config", str(config))
    assert ended.returncode == ExitCode.CONFIGURATION
    assert f"supervisor: cannot read {str(config)!r}: " in ended.stderr
    assert "(at line 2, column 18); mend that place" in ended.stderr


def test_mistakes_end_the_run_with_78_and_without_the_secret() -> None:
    ended = run(environ={"PORT": "none", "DATABASE_URL": f"postgresql://u:{TOKEN}@h/d"})
    assert ended.returncode == ExitCode.CONFIGURATION
    assert "PORT is 'none': input should be a valid integer" in ended.stderr
    assert TOKEN not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "prot=1"], "no setting of that name; did you mean 'port'?"),
        (["--set", "port"], "it reads NAME=VALUE"),
        (["--set", "user_services=x"], "no setting of that name"),
        (["--prot", "1"], "unrecognized arguments: --prot"),
    ],
)
def test_a_usage_error_of_run_ends_with_64(arguments: list[str], said: str) -> None:
    ended = run(*arguments)
    assert ended.returncode == ExitCode.USAGE
    assert said in ended.stderr
