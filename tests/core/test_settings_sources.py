"""The sources beside environment and file: `.env`, the secrets' folder, the secrets command; and what the app gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.commands import load_settings
from supervisor.commands.fetch_secrets import SecretsCommand, fetch_now
from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.core.settings import Loaded, plain_fields, variable
from supervisor.core.settings.sources import file_variables
from supervisor.process.reaper import Reaper

TOKEN = "s3cr3t-of-this-test"


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine takes part; the app's folder is that of the test."""
    monkeypatch.setattr("supervisor.commands.load_settings.SYSTEM_CONFIG", tmp_path / "none.toml")
    monkeypatch.setattr("supervisor.commands.load_settings._SECRETS_DIR", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)


def never(wanted: SecretsCommand) -> dict[str, str]:
    """For a test in which no command is to run."""
    raise AssertionError("a secrets command ran")


def load(environ: Mapping[str, str] | None = None, **options: Any) -> Loaded:
    """Settings with the app in the working folder; nothing is run."""
    given = {"app_dir": str(Path.cwd())} | options.pop("arguments", {})
    return load_settings.load(given, **{"environ": environ or {}, "fetch": never, **options})


def mistakes(environ: Mapping[str, str] | None = None, **options: Any) -> list[str]:
    """The lines of the report, without dashes and folders."""
    with pytest.raises(ConfigurationError) as caught:
        load(environ, **options)
    return [line.removeprefix("  - ").replace(f"{Path.cwd()}/", "") for line in str(caught.value).splitlines()[1:]]


def write(name: str, text: str) -> str:
    """A file in the working folder; gives its path."""
    path = Path.cwd() / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


# Which wins.


def printing(values: dict[str, str]) -> Any:
    """A secrets command that prints these."""
    return lambda wanted: values


SOURCES = ("argument", "environment", "file of it", "command", "folder", ".env.production", ".env", "toml", "default")


@pytest.mark.parametrize("first", range(len(SOURCES)), ids=SOURCES)
def test_the_first_source_that_says_something_wins(first: int) -> None:
    said = {name: str(2000 + at) for at, name in enumerate(SOURCES) if at >= first}
    environ: dict[str, str] = {}
    options: dict[str, Any] = {}
    if "argument" in said:
        options["arguments"] = {"port": said["argument"]}
    if "environment" in said:
        environ["PORT"] = said["environment"]
    elif "file of it" in said:  # beside the variable itself it would be a mistake
        environ["SUPERVISOR_PORT_FILE"] = write("port.txt", said["file of it"] + "\n")
    if "command" in said:
        environ["SECRETS_COMMAND"] = "true"
        options["fetch"] = printing({"SUPERVISOR_PORT": said["command"]})
    for source, place in (("folder", "secrets/port"), (".env.production", None), (".env", None)):
        if source in said:
            text = said[source] if place else f"PORT={said[source]}"
            write(place or source, text)
    if "toml" in said:
        write("supervisor.toml", f"port = {said['toml']}")
    loaded = load(environ, **options)
    assert loaded.settings.port == (3000 if SOURCES[first] == "default" else 2000 + first)
    here = str(Path.cwd())
    origin = ["--port", "PORT", "SUPERVISOR_PORT_FILE", "SECRETS_COMMAND: SUPERVISOR_PORT", f"{here}/secrets/port"]
    origin += [f"{here}/.env.production: PORT", f"{here}/.env: PORT", f"{here}/supervisor.toml", ""]
    assert loaded.origins.get("port", "") == origin[first]


# Files of single values.


@pytest.mark.parametrize("name", ["port", "app_command", "log_level", "stack"])
def test_every_setting_may_be_given_by_a_file(name: str) -> None:
    text = {"port": "81", "app_command": "node a.js", "log_level": "debug", "stack": "shop"}[name]
    loaded = load({f"{variable(name)}_FILE": write("value", text + "\n")})
    assert getattr(loaded.settings, name) == {"port": 81, "app_command": ("node", "a.js")}.get(name, text)


def test_no_file_variable_is_a_setting_itself() -> None:
    variables = {variable(name) for name in plain_fields()}
    assert not {f"{name}_FILE" for name in variables} & variables
    assert file_variables({"PORT_FILE": "/x", "SUPERVISOR_APP_DIR_FILE": "/x", "SUPERVISOR_ENV_FILE": "/x"}) == {}


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pipe", "it is no regular file; give the name of one"),
        ("folder", "it is no regular file; give the name of one"),
        ("big", "it has more than 64 KiB; check that it is the right file"),
        ("null", "it has a null byte; save it as text"),
    ],
)
def test_a_file_that_is_none_is_refused_at_once(kind: str, why: str) -> None:
    path = Path.cwd() / "value"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"x" * (64 * 1024 + 1) if kind == "big" else b"a\0b")
    (line,) = mistakes({"DATABASE_URL_FILE": str(path)})
    assert line.endswith(f"value': {why}")


def test_of_the_secrets_folder_only_names_of_settings_are_read() -> None:
    write("secrets/database_url", f"postgresql://u:{TOKEN}@h/d\n")
    write("secrets/other", "x" * 1_000_000)
    (Path.cwd() / "secrets/stack").mkdir()
    loaded = load()
    assert loaded.settings.database_url == Secret(f"postgresql://u:{TOKEN}@h/d")
    assert set(loaded.origins) == {"app_dir", "database_url"}
    write("elsewhere/redis_url", "redis://h")
    assert load({"SUPERVISOR_SECRETS_DIR": "elsewhere"}).settings.redis_url == Secret("redis://h")


def test_an_unusable_file_in_the_secrets_folder_stands_in_the_report() -> None:
    write("secrets/redis_url", " \n")
    assert mistakes() == ["secrets/redis_url: it is empty; write the value into it"]


# `.env`.


def test_the_file_of_the_stage_is_chosen_by_the_stage() -> None:
    write(".env", "PORT=1\nSUPERVISOR_STACK=shop")
    write(".env.production", "PORT=2")
    write(".env.staging", "PORT=3")
    assert load().settings.port == 2
    assert load({"SUPERVISOR_STAGE": "staging"}).settings.port == 3
    assert load({"SUPERVISOR_STAGE": "test"}).settings.port == 1
    write(".env", "PORT=1\nSUPERVISOR_STAGE=staging")
    assert load().settings.port == 3


def test_a_missing_file_of_the_stage_is_no_mistake() -> None:
    assert load(build=True).settings.port == load().settings.port == 3000


def test_what_is_not_ours_in_env_files_goes_to_the_app() -> None:
    write(".env", f"A=1\nB=1\nSUPERVISOR_STACK=shop\nTOKEN='{TOKEN}'\nMULTI=\"a\nb\"\nexport C=3\nNOTHING")
    write(".env.production", "B=2\nPORT=4\n# a comment\n")
    loaded = load()
    assert {name: value.reveal() for name, value in loaded.env_files.items()} == {
        "A": "1",
        "B": "2",
        "C": "3",
        "MULTI": "a\nb",
        "PORT": "4",
        "TOKEN": TOKEN,
    }
    assert TOKEN not in repr(loaded)


def test_the_app_is_given_what_is_nearest_to_it_first() -> None:
    write(".env", "A=env\nB=env\nC=env\nD=env\nE=env\nSUPERVISOR_STACK=shop")
    write(".env.production", "B=stage\nC=stage\nD=stage\nE=stage")
    fetched = {"D": "fetched", "E": "fetched", "SUPERVISOR_LOG_LEVEL": "debug"}
    loaded = load({"SECRETS_COMMAND": "true"}, fetch=printing(fetched))
    values = loaded.app_values({"C": "file", "D": "file", "E": "file"}, {"E": "environ", "SUPERVISOR_PORT": "1"})
    assert values == {"A": "env", "B": "stage", "C": "file", "D": "fetched", "E": "environ"}


def test_a_line_that_is_none_is_named_by_its_number_alone() -> None:
    write(".env", f"A=1\n\n{TOKEN} and more\nB=2")
    assert mistakes() == [".env: line 3 is not KEY=VALUE; mend that line"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (".env", "SUPERVISOR_PROT=1", ".env: unknown setting SUPERVISOR_PROT; did you mean 'SUPERVISOR_PORT'?"),
        (".env", "APP_DIR=/x", ".env: APP_DIR comes too late: it says where this is read; set it in the environment"),
        (
            ".env.production",
            "SUPERVISOR_STAGE=test",
            ".env.production: SUPERVISOR_STAGE comes too late: it says where this is read; set it in the environment",
        ),
        (
            ".env.production",
            "STRIPE_KEY=change-me",
            ".env.production: STRIPE_KEY is still the placeholder of the example (change-me); give it a value of your "
            "own, or remove it",
        ),
        (
            ".env.production",
            f"DATABASE_URL=postgresql://app:change-me@{TOKEN}/app",
            ".env.production: DATABASE_URL is still the placeholder of the example (change-me); give it a value of "
            "your own, or remove it",
        ),
        (".env", "PORT=x", ".env: PORT is 'x': input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_a_mistake_in_an_env_file_is_named(name: str, text: str, expected: str) -> None:
    write(name, text)
    assert mistakes() == [expected]


def test_a_placeholder_in_the_environment_is_refused_where_it_is_a_setting() -> None:
    (line,) = mistakes({"SUPERVISOR_WEBHOOK_URL": "https://change-me.example", "OTHER": "change-me"})
    assert line.startswith("SUPERVISOR_WEBHOOK_URL is still the placeholder")


# The secrets command: really run.


def script(body: str) -> str:
    """A command line that runs this Python."""
    return f"{sys.executable} {write('fetch.py', body)}"


def really(environ: Mapping[str, str], **options: Any) -> Loaded:
    """With the command run for real."""
    return load({"PATH": os.environ["PATH"], **environ}, fetch=fetch_now, **options)


@pytest.mark.parametrize(
    "printed",
    [
        f"DATABASE_URL=postgresql://u:{TOKEN}@h/d\\nSTRIPE_KEY={TOKEN}\\n",
        f'{{"DATABASE_URL": "postgresql://u:{TOKEN}@h/d", "STRIPE_KEY": "{TOKEN}"}}',
    ],
    ids=["dotenv", "json"],
)
def test_what_the_secrets_command_prints_is_as_if_set(printed: str) -> None:
    loaded = really({"SECRETS_COMMAND": script(f"print({printed!r})".replace("\\\\n", "\\n"))})
    assert loaded.settings.database_url == Secret(f"postgresql://u:{TOKEN}@h/d")
    assert loaded.fetched["STRIPE_KEY"] == Secret(TOKEN)
    assert TOKEN not in repr(loaded)


def test_the_secrets_command_has_our_environment_and_that_of_the_files() -> None:
    write(".env", f"VAULT_ADDR=https://vault\nSECRETS_COMMAND={script('import os; print(os.environ)')}")
    body = (
        "import os; print('A=' + os.environ['VAULT_ADDR'] + os.environ['VAULT_TOKEN'] + os.path.basename(os.getcwd()))"
    )
    write("fetch.py", body)
    assert really({"VAULT_TOKEN": "t"}).fetched == {"A": Secret(f"https://vaultt{Path.cwd().name}")}


def test_a_secrets_command_that_fails_is_quoted_without_secrets() -> None:
    body = (
        f"import sys, os\nprint('A={TOKEN}')\n"
        f"sys.stderr.write('no access to {TOKEN} with ' + os.environ['VAULT_TOKEN'] + ' at https://u:pw@vault')\nsys.exit(3)"
    )
    with pytest.raises(ConfigurationError) as caught:
        really({"SECRETS_COMMAND": script(body), "VAULT_TOKEN": "hvs.0123456789", "PORT": "x"})
    first, *rest = str(caught.value).splitlines()[1:]
    assert first == (
        f"  - cannot fetch secrets: {sys.executable!r} (SECRETS_COMMAND) ended with status 3 and said: no access to "
        "*** with *** at https://u:***@vault; run it by hand to see why"
    )
    assert rest == ["  - PORT is 'x': input should be a valid integer, unable to parse string as an integer"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"print('{TOKEN}')", 'neither KEY=VALUE lines nor JSON {"KEY": "value"}: there is no KEY=VALUE line in it'),
        (f'print(\'{{"A": "{TOKEN}\')', "it is not whole JSON (line 1, column 27)"),
        (f'print(\'{{"A": ["{TOKEN}"]}}\')', "the value of A is no text"),
        (f'print(\'{{"{TOKEN}": "1"}}\')', "the name of entry 1 is not made of letters, digits and _"),
        (f"print('A={TOKEN}' * 100000)", "printed more than 64 KiB; have it print only names and values"),
        ("print('SUPERVISOR_PROT=1')", "SECRETS_COMMAND: unknown setting SUPERVISOR_PROT; did you mean"),
        ("print('SECRETS_COMMAND=x')", "SECRETS_COMMAND: SECRETS_COMMAND comes too late"),
        ("import os, sys; os.write(1, b'A=\\xff')", "it is not UTF-8 text"),
    ],
)
def test_what_is_no_list_of_secrets_is_refused_and_not_quoted(body: str, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        really({"SECRETS_COMMAND": script(body)})
    assert why in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_secrets_command_that_hangs_is_ended_with_all_it_started() -> None:
    body = (
        "import subprocess, os, time\np = subprocess.Popen(['sleep', '300'])\n"
        "open('pids', 'w').write(f'{os.getpid()} {p.pid}')\ntime.sleep(300)"
    )
    with pytest.raises(ConfigurationError, match=r"did not end within 1 s; check that it can reach its server"):
        really({"SECRETS_COMMAND": script(body), "SUPERVISOR_SECRETS_SECONDS": "1"})
    for pid in Path("pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_secrets_command_that_is_not_there_is_said() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot start 'secrets': no program 'vaultt' on the PATH"):
        really({"SECRETS_COMMAND": "vaultt read"})


def test_an_image_build_asks_for_no_secrets() -> None:
    write(".env", f"DATABASE_URL_FILE={Path.cwd()}/nowhere")
    loaded = load({"SECRETS_COMMAND": "vault read", "REDIS_URL_FILE": "/run/secrets/redis"}, build=True)
    assert loaded.settings.secrets_command == ("vault", "read")
    assert len(mistakes({"REDIS_URL_FILE": "/nowhere"})) == 2


# Again, within a running supervisor.


@pytest.mark.anyio
async def test_secrets_are_fetched_again_at_a_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": os.environ["PATH"], "SECRETS_COMMAND": "cat values"})
    reaper = Reaper()
    async with anyio.create_task_group() as group:
        await group.start(reaper.run)
        for value in ("first", "second"):
            write("values", f"STRIPE_KEY={value}")
            again = await load_settings.load_again({"app_dir": str(Path.cwd())}, reaper)
            assert again.fetched == {"STRIPE_KEY": Secret(value)}
        Path("values").unlink()
        with pytest.raises(ConfigurationError, match="ended with status 1 and said: cat: values: No such file"):
            await load_settings.load_again({"app_dir": str(Path.cwd())}, reaper)
        group.cancel_scope.cancel()
