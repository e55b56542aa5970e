"""Wrong configurations, each with its whole report: what a user reads before anything was started."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from supervisor.commands.config import main
from supervisor.core.errors import ExitCode
from supervisor.core.settings import aliases, plain_fields

TOKEN = "s3cr3t-of-this-test"
ALIASES = {alias for name in plain_fields() for alias in aliases(name)}


@dataclass(frozen=True)
class Wrong:
    """A configuration, and its report; `DIR` stands for the app's folder."""

    name: str
    report: tuple[str, ...]
    environ: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    head: str = "cannot use the settings:"


ONE = '[apps.a]\ncommand = "x"\n'
TWO = ONE + '[apps.b]\ncommand = "x"\nport = 8\n'

WRONG = (
    Wrong(
        "a port that is none",
        ("PORT is 'http': input should be a valid integer, unable to parse string as an integer",),
        environ={"PORT": "http"},
    ),
    Wrong(
        "a port out of range, on the command line",
        ("--port is '70000': input should be less than or equal to 65535",),
        options=("--port", "70000"),
    ),
    Wrong(
        "a word that is not one of those allowed",
        (
            "SUPERVISOR_APP_RESTART is 'never': input should be 'no', 'on-failure' or 'always'",
            "SUPERVISOR_MODE is 'docker': input should be 'auto', 'dind', 'socket', 'remote', 'embedded' or 'none'",
        ),
        environ={"SUPERVISOR_MODE": "docker", "SUPERVISOR_APP_RESTART": "never"},
    ),
    Wrong(
        "one mistake in each source",
        (
            "DIR/.env: unknown setting SUPERVISOR_STAK; did you mean 'SUPERVISOR_STACK'?",
            "DIR/supervisor.toml: unknown key 'prot'; did you mean 'port'?",
            "SUPERVISOR_HOOK_SECONDS is 'soon': input should be a valid number, unable to parse string as a number",
            "--set log_level is 'loud': input should be 'debug', 'info', 'warning' or 'error'",
            "DIR/supervisor.toml: boot_seconds is 0: input should be greater than 0",
        ),
        environ={"SUPERVISOR_HOOK_SECONDS": "soon"},
        files={".env": "SUPERVISOR_STAK=x", "supervisor.toml": "prot = 1\nboot_seconds = 0"},
        options=("--set", "log_level=loud"),
    ),
    Wrong(
        "a secret beside its file",
        ("DATABASE_URL and DATABASE_URL_FILE are both set: it is not known which is meant; unset one of them",),
        environ={"DATABASE_URL": f"postgresql://u:{TOKEN}@h/d", "DATABASE_URL_FILE": "secret"},
        files={"secret": TOKEN},
    ),
    Wrong(
        "a secret file that is not there",
        ("REDIS_URL_FILE names '/nowhere/redis': No such file or directory; check its path and mode",),
        environ={"REDIS_URL_FILE": "/nowhere/redis"},
    ),
    Wrong(
        "a secret of a wrong type",
        ("DIR/supervisor.toml: webhook_url is '***': give a string",),
        files={"supervisor.toml": f'webhook_url = ["{TOKEN}"]'},
    ),
    Wrong(
        "the example's placeholder",
        (
            "DIR/.env.production: STRIPE_KEY is still the placeholder of the example (change-me); give it a value of "
            "your own, or remove it",
            "SUPERVISOR_DATABASE_URL is still the placeholder of the example (change-me); give it a value of your own, "
            "or remove it",
        ),
        environ={"SUPERVISOR_DATABASE_URL": f"postgresql://{TOKEN}:change-me@h/d"},
        files={".env.production": "STRIPE_KEY=change-me"},
    ),
    Wrong(
        "a broken .env file",
        ("DIR/.env: line 2 is not KEY=VALUE; mend that line",),
        files={".env": f"A=1\n{TOKEN} {TOKEN}\n"},
    ),
    Wrong(
        "a secrets command that is not installed",
        (
            "cannot start 'secrets': no program 'vaultt' on the PATH; check the command's first word (SECRETS_COMMAND)",
            "SUPERVISOR_STACK is '-': string should match pattern '^[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?$'",
        ),
        environ={"SECRETS_COMMAND": "vaultt read", "SUPERVISOR_STACK": "-"},
    ),
    Wrong(
        "a secrets command that fails",
        (
            "cannot fetch secrets: '/bin/sh' (SECRETS_COMMAND) ended with status 2 and said: permission denied for "
            "***; run it by hand to see why",
        ),
        environ={"SECRETS_COMMAND": "echo permission denied for $VAULT_TOKEN >&2; exit 2", "VAULT_TOKEN": TOKEN},
    ),
    Wrong(
        "half a certificate and one port twice",
        (
            "tls_cert_file and tls_key_file go together: set both or neither",
            "port and http_port are both 80; give each a port of its own",
        ),
        environ={"PORT": "80", "SUPERVISOR_HTTP_PORT": "80", "SUPERVISOR_TLS_CERT_FILE": "/cert.pem"},
    ),
    Wrong(
        "a service that is none",
        (
            "SUPERVISOR_SERVICES: no service 'postgress'; did you mean 'postgres'?; there are postgres, redis, traefik",
            "SUPERVISOR_OPTIONAL_SERVICES: no service 'traefik'",
        ),
        environ={"SUPERVISOR_SERVICES": "postgress,redis", "SUPERVISOR_OPTIONAL_SERVICES": "traefik"},
    ),
    Wrong(
        "a command without its quote",
        ('APP_COMMAND is "node \'a.js": unbalanced quotes: No closing quotation',),
        environ={"APP_COMMAND": "node 'a.js"},
    ),
    Wrong(
        "a service of one's own without a command and with a wrong key",
        (
            "DIR/supervisor.toml: [services.worker]: key 'command' is missing",
            "DIR/supervisor.toml: [services.worker]: env.TOKEN: input should be a valid string",
            "DIR/supervisor.toml: [services.worker]: unknown key 'cmd'; did you mean 'cwd'?",
        ),
        files={"supervisor.toml": "[services.worker]\ncmd = 'x'\nenv = { TOKEN = 4200420042 }"},
    ),
    Wrong(
        "a broken supervisor.toml",
        (),
        files={"supervisor.toml": 'port = 1\nlog_level = "info\n'},
        head="cannot read 'DIR/supervisor.toml': Illegal character '\\n' (at line 2, column 18); mend that place",
    ),
    Wrong(
        "a supervisor.toml that was named and is not there",
        (),
        options=("--config", "/nowhere.toml"),
        head="cannot read settings: there is no file '/nowhere.toml'; check --config",
    ),
    Wrong(
        "one command for several apps",
        (
            "APP_COMMAND (or a command behind --) and [apps.a] are both given: with [apps.NAME] tables each app has a "
            "`command` of its own there; unset APP_COMMAND, or remove the tables to run one app",
        ),
        environ={"APP_COMMAND": "node a.js"},
        files={"supervisor.toml": ONE},
    ),
    Wrong(
        "two apps on one port, and a third without one",
        (
            "[apps.b]: key 'port' is missing: 3000, the general port, is that of [apps.a]; give each further app a "
            "port of its own",
            "[apps.a] and [apps.c] have both port 3000; give each a port of its own",
        ),
        files={"supervisor.toml": ONE + '[apps.b]\ncommand = "x"\n[apps.c]\ncommand = "x"\nport = 3000'},
    ),
    Wrong(
        "apps that wait for each other, and one that is not there",
        (
            "[apps.b]: requires: no app or service 'aa'; did you mean 'a'?",
            "[apps.c]: requires: c -> d -> c is a circle; none of them could start first",
        ),
        files={
            "supervisor.toml": TWO + 'requires = ["aa"]\n[apps.c]\ncommand = "x"\nport = 1\nrequires = ["d"]\n'
            '[apps.d]\ncommand = "x"\nport = 2\nrequires = ["c"]'
        },
    ),
    Wrong(
        "apps that would share their data",
        (
            "[apps.a] and [apps.b] both own the schema 'shop'; give each a schema of its own, or one of them owner = "
            "false",
            "[apps.a] and [apps.b] would share keys: redis.prefix is 's:' and 's:b:'; none may begin with another",
        ),
        files={
            "supervisor.toml": '[apps.a]\ncommand = "x"\ndatabase = { schema = "shop" }\nredis = { prefix = "s:" }\n'
            '[apps.b]\ncommand = "x"\nport = 8\ndatabase = { schema = "shop" }\nredis = { prefix = "s:b:" }'
        },
    ),
    Wrong(
        "schemas that cannot be",
        (
            "[apps.a]: database.schema is 'pg_x': Postgres keeps that name for itself; choose another",
            "[apps.b]: database.schema is 'public': say public = true too, or choose another name",
            "[apps.b]: database.reads: 'c': no such app",
        ),
        files={
            "supervisor.toml": '[apps.a]\ncommand = "x"\ndatabase = { schema = "pg_x" }\n[apps.b]\ncommand = "x"\n'
            'port = 8\ndatabase = { schema = "public", reads = ["c"] }'
        },
    ),
    Wrong(
        "what an app needs, declared wrong",
        (
            "DIR/supervisor.toml: [apps.a]: env.vars.A.pattern: not a regular expression: missing ), unterminated "
            "subpattern at position 0",
            "DIR/supervisor.toml: [apps.a.env.vars.A]: unknown key 'minlength'; did you mean 'min_length'?",
            "DIR/supervisor.toml: [apps.a]: env.vars.B.kind: input should be 'text', 'url', 'port', 'int', 'bool' or "
            "'email'",
        ),
        files={
            "supervisor.toml": ONE + "[apps.a.env.vars.A]\npattern = '('\nminlength = 3\n"
            f"[apps.a.env.vars.B]\nkind = '{TOKEN}'"
        },
    ),
)


def test_there_are_twenty_and_more() -> None:
    assert len(WRONG) >= 20
    assert len({wrong.name for wrong in WRONG}) == len(WRONG)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_configuration_has_this_report(
    wrong: Wrong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("supervisor.commands.load_settings.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.setattr("supervisor.commands.load_settings._SECRETS_DIR", str(tmp_path / "secrets"))
    for name in list(os.environ):
        if name.startswith("SUPERVISOR_") or name in ALIASES:
            monkeypatch.delenv(name)
    for name, value in {"APP_DIR": str(tmp_path), **wrong.environ}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    for name, text in wrong.files.items():
        (tmp_path / name).write_text(text)
    assert main(["check", *wrong.options]) == ExitCode.CONFIGURATION
    printed = capsys.readouterr()
    expected = [f"supervisor: {wrong.head}", *(f"  - {line}" for line in wrong.report)]
    assert printed.err.replace(str(tmp_path), "DIR").splitlines() == expected
    assert printed.out == ""
    assert TOKEN not in printed.err
