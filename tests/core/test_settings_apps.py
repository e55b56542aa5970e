"""Several apps: what a table `[apps.NAME]` says of one, and what is told of a table that cannot be."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import BaseModel

from supervisor.commands.load_settings import load
from supervisor.core.errors import ConfigurationError
from supervisor.core.settings import AppDatabase, AppRedis, Settings
from supervisor.core.settings.app import SETTING_OF, AppSettings
from supervisor.core.settings.app_level import AppLevel

THREE = """
port = 8000
drain_seconds = 7

[apps.web]
command = "node web.js"
requires = ["api", "redis"]
host = "example.org"
redis = false

[apps.api]
command = ["python", "api.py"]
dir = "services/api"
env_file = "api.env"
requires = ["auth-service"]
port = 8001
drain_seconds = 90
health_path = "/up"
database = { schema = "public", public = true, reads = ["auth-service"] }

[apps.api.env]
required = ["STRIPE_KEY"]
optional = { LOG_LEVEL = "info", RETRIES = 3, DEBUG = false }

[apps.api.env.vars.SESSION_SECRET]
generate = true
min_length = 32
give = "file"

[apps.api.env.vars.LOG_LEVEL]
pattern = "^(info|debug)$"

[apps.auth-service]
command = "auth"
port = 8002
redis = { prefix = "login:" }
"""


@pytest.fixture(autouse=True)
def _no_system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor.toml of the machine must not take part."""
    monkeypatch.setattr("supervisor.commands.load_settings.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.chdir(tmp_path)


def read(toml: str, environ: dict[str, str] | None = None) -> Settings:
    """The settings of this file alone."""
    Path("supervisor.toml").write_text(toml)
    return load({}, config=Path("supervisor.toml"), environ=environ or {}).settings


def mistakes(toml: str, environ: dict[str, str] | None = None) -> list[str]:
    """The lines of the report, without the name of the file."""
    with pytest.raises(ConfigurationError) as caught:
        read(toml, environ)
    here = f"{Path.cwd() / 'supervisor.toml'}: "
    return [line.removeprefix("  - ").removeprefix(here) for line in str(caught.value).splitlines()[1:]]


def test_without_tables_there_is_one_app_with_the_general_settings() -> None:
    settings = read('app_command = "true"')
    assert settings.app_names == ("app",)
    assert settings.for_app("app") is settings


def test_apps_stand_behind_those_they_require() -> None:
    assert read(THREE).app_names == ("auth-service", "api", "web")


def test_an_app_has_what_its_table_says_and_else_what_is_said_in_general(tmp_path: Path) -> None:
    settings = read(THREE)
    api, web = settings.for_app("api"), settings.for_app("web")
    assert api.app_command == ("python", "api.py")
    assert api.app_dir == tmp_path / "services/api"
    assert api.env_file == tmp_path / "services/api/api.env"
    assert (api.port, api.drain_seconds, api.app_health_path) == (8001, 90, "/up")
    assert (web.port, web.drain_seconds, web.app_health_path) == (8000, 7, "/api/health")
    assert (web.app_dir, web.app_host, api.app_host) == (tmp_path, "example.org", None)


def test_an_unknown_app_has_no_settings() -> None:
    for toml in (THREE, ""):
        with pytest.raises(KeyError):
            read(toml).for_app("nobody")


def test_an_app_has_a_schema_and_keys_of_its_name_unless_it_says_others() -> None:
    apps = read(THREE).apps
    assert apps["auth-service"].database == AppDatabase(schema="auth_service")
    assert apps["auth-service"].redis == AppRedis(prefix="login:")
    assert apps["api"].database == AppDatabase(schema="public", public=True, reads=("auth-service",))
    assert apps["api"].redis == AppRedis(prefix="api:")
    assert apps["web"].redis is None


def test_what_an_app_needs_in_its_environment_is_declared() -> None:
    env = read(THREE).apps["api"].env
    assert env.required == ("STRIPE_KEY",)
    assert env.needed == ("STRIPE_KEY", "SESSION_SECRET")
    assert env.optional == {"LOG_LEVEL": "info", "RETRIES": "3", "DEBUG": "false"}
    secret = env.vars["SESSION_SECRET"]
    assert (secret.generate, secret.min_length, secret.give, secret.kind) == (True, 32, "file", "text")


def kinds(model: type[BaseModel], name: str) -> set[object]:
    """The types a field takes beside None."""
    hint = get_type_hints(model, include_extras=True)[name]
    return set(get_args(hint)) - {NoneType} if get_origin(hint) in (Union, UnionType) else {hint}


def test_every_setting_of_an_app_is_a_key_of_its_table_with_the_same_type() -> None:
    assert set(SETTING_OF.values()) == AppLevel.model_fields.keys()
    for key, setting in SETTING_OF.items():
        assert kinds(AppSettings, key) == kinds(AppLevel, setting), key


@pytest.mark.parametrize(
    ("toml", "environ", "expected"),
    [
        (
            '[apps.a]\ncommand = "x"',
            {"APP_COMMAND": "node a.js"},
            "APP_COMMAND (or a command behind --) and [apps.a] are both given: with [apps.NAME] tables each app has a "
            "`command` of its own there; unset APP_COMMAND, or remove the tables to run one app",
        ),
        ("[apps.a]\nport = 1", {}, "[apps.a]: key 'command' is missing"),
        ('[apps.a]\napp_command = "x"\ncommand = "x"', {}, "[apps.a]: unknown key 'app_command'; did you mean"),
        ('[apps.a]\ncommand = "x"\ndrain_second = 1', {}, "[apps.a]: unknown key 'drain_second'; did you mean 'drain_"),
        ('[apps.a]\ncommand = "x"\nport = 0', {}, "[apps.a]: port is 0: input should be greater than or equal to 1"),
        ('[apps."A b"]\ncommand = "x"', {}, "[apps.A b]: the name of an app is 1 to 63 of a-z 0-9 _ . -, not 'A b'"),
        ('[apps.redis]\ncommand = "x"', {}, "[apps.redis] is the name of a service; choose another"),
        (
            '[apps.a]\ncommand = "x"\nrequires = ["ap"]\n[apps.api]\ncommand = "x"\nport = 1',
            {},
            "[apps.a]: requires: no app or service 'ap'; did you mean 'api'?",
        ),
        (
            '[apps.a]\ncommand = "x"\nrequires = ["b"]\n[apps.b]\ncommand = "x"\nport = 1\nrequires = ["a"]',
            {},
            "[apps.a]: requires: a -> b -> a is a circle; none of them could start first",
        ),
        (
            '[apps.a]\ncommand = "x"\n[apps.b]\ncommand = "x"',
            {},
            "[apps.b]: key 'port' is missing: 3000, the general port, is that of [apps.a]; give each further app a "
            "port of its own",
        ),
        (
            '[apps.a]\ncommand = "x"\nport = 9\n[apps.b]\ncommand = "x"\nport = 9',
            {},
            "[apps.a] and [apps.b] have both port 9; give each a port of its own",
        ),
        (
            '[apps.a]\ncommand = "x"\nport = 9\nhost = "h"\n[apps.b]\ncommand = "x"\nport = 8\nhost = "h"',
            {},
            "[apps.a] and [apps.b] have both host 'h'; give each a host of its own",
        ),
        (
            'redis_port = 9\n[apps.a]\ncommand = "x"\nport = 9',
            {},
            "port of [apps.a] and redis_port are both 9; give each a port of its own",
        ),
        (
            '[apps.a]\ncommand = "x"\ndatabase = { schema = "s" }\n'
            '[apps.b]\ncommand = "x"\nport = 8\ndatabase = { schema = "s" }',
            {},
            "[apps.a] and [apps.b] both own the schema 's'; give each a schema of its own, or one of them owner = "
            "false",
        ),
        (
            '[apps.a]\ncommand = "x"\ndatabase = { schema = "public" }',
            {},
            "[apps.a]: database.schema is 'public': say public = true too, or choose another name",
        ),
        (
            '[apps.a]\ncommand = "x"\ndatabase = { reads = ["b"] }\n'
            '[apps.b]\ncommand = "x"\nport = 8\ndatabase = false',
            {},
            "[apps.a]: database.reads: 'b': it has no database",
        ),
        (
            '[apps.a]\ncommand = "x"\ndatabase = { shema = "s" }',
            {},
            "[apps.a.database]: unknown key 'shema'; did you mean 'schema'?",
        ),
        (
            '[apps.a]\ncommand = "x"\nredis = { prefix = "b:" }\n[apps.b]\ncommand = "x"\nport = 8',
            {},
            "[apps.a] and [apps.b] would share keys: redis.prefix is 'b:' and 'b:'; none may begin with another",
        ),
        (
            '[apps.a]\ncommand = "x"\n[apps.a.env]\nrequired = ["SUPERVISOR_X"]',
            {},
            "[apps.a.env]: SUPERVISOR_X is a name of ours, which no app is given; choose another",
        ),
        (
            '[apps.a]\ncommand = "x"\n[apps.a.env]\noptional = { "A-B" = "s3cret" }',
            {},
            "[apps.a.env.optional]: the name of a variable is letters, digits and _, not 'A-B'",
        ),
        (
            '[apps.a]\ncommand = "x"\n[apps.a.env.vars.X]\nkind = "email"\ngenerate = true',
            {},
            "[apps.a]: env.vars.X: generate = true makes random text, which is no email; leave one of the two out",
        ),
        (
            '[apps.a]\ncommand = "x"\n[apps.a.env.vars.X]\npatern = "x"',
            {},
            "[apps.a.env.vars.X]: unknown key 'patern'; did you mean 'pattern'?",
        ),
        ("apps = 5", {}, "[apps]: give a table"),
    ],
)
def test_a_table_that_cannot_be_is_named_with_what_is_wrong(toml: str, environ: dict[str, str], expected: str) -> None:
    lines = mistakes(toml, environ)
    assert len(lines) == 1, lines
    assert lines[0].startswith(expected)
