"""`supervisor env detect ENTRY` as a program: its text, its JSON, its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT_SECONDS = 60
MAIN = """import os
key = os.environ["STRIPE_KEY"]
url = os.environ["DATABASE_URL"]
level = os.getenv("LOG_LEVEL", "info")
secret = os.getenv("SIGNING_SECRET", "not-to-be-shown")
other = os.environ["SESSION_SECRET"]
port = int(os.environ.get("PORT", 3000))
os.getenv("PLAIN")
"""
TOML = """[apps.api.env]
required = ["DATABASE_URL", "SESSION_SECRET", "STRIPE_KEY"]
optional = { LOG_LEVEL = "info", PORT = "3000" }
# read too, without a default that is known: PLAIN, SIGNING_SECRET

[apps.api.env.vars.DATABASE_URL]
kind = "url"

[apps.api.env.vars.SESSION_SECRET]
generate = true
min_length = 32

[apps.api.env.vars.PORT]
kind = "port\""""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="env-detect-", dir="/tmp") as name:
        (Path(name) / "main.py").write_text(MAIN)
        yield Path(name)


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisor", "env", "detect", *argv]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LANG": "C.UTF-8"}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ, check=False)


def test_the_text_tells_names_places_and_a_table_to_paste(folder: Path) -> None:
    done = run("main.py", "--app-dir", str(folder), "--app", "api", "--seconds", "30")
    assert (done.returncode, done.stderr) == (0, "")
    text, _, toml = done.stdout.partition("\n\n")
    lines = text.splitlines()
    assert lines[0].startswith("entry      main.py (python, 4 runs, ")
    assert lines[1:8] == [
        "required   DATABASE_URL    url    main.py:3",
        "           SESSION_SECRET  text   main.py:6",
        "           STRIPE_KEY      text   main.py:2",
        "optional   LOG_LEVEL       text   main.py:4, default 'info'",
        "           PLAIN           text   main.py:8",
        "           PORT            port   main.py:7, default 3000",
        "           SIGNING_SECRET  text   main.py:5, default ***",
    ]
    assert toml == TOML + "\n"
    assert tomllib.loads(toml)["apps"]["api"]["env"]["optional"] == {"LOG_LEVEL": "info", "PORT": "3000"}
    assert "not-to-be-shown" not in done.stdout


def test_the_json_has_the_documented_form(folder: Path) -> None:
    done = run("main.py", "--app-dir", str(folder), "--json", "--seconds", "30", "--set", "STRIPE_KEY=sk-given")
    told = json.loads(done.stdout)
    assert set(told) == {
        *("entry", "app_dir", "runtime", "complete", "why", "required", "optional", "by_libraries"),
        *("contained", "hidden", "runs", "seconds", "toml"),
    }
    assert (told["complete"], told["why"], told["runtime"]) == (True, None, "python")
    assert told["required"][0] == {
        "name": "DATABASE_URL",
        "kind": "url",
        "required": True,
        "default": None,
        "has_default": False,
        "read_at": ["main.py:3"],
        "reader": "app",
        "library": None,
    }
    assert [each["name"] for each in told["required"]] == ["DATABASE_URL", "SESSION_SECRET"]
    assert "STRIPE_KEY" in {each["name"] for each in told["optional"]}
    assert told["contained"] == {
        **dict.fromkeys(("user", "network", "files", "processes", "ipc"), True),
        "why": {},
    }
    assert "sk-given" not in done.stdout
    assert "not-to-be-shown" not in done.stdout


def test_what_is_not_all_ends_with_1(folder: Path) -> None:
    (folder / "main.py").write_text("import os\nos.getenv('A')\nraise ValueError('no luck')\n")
    done = run("main.py", "--app-dir", str(folder), "--seconds", "30")
    assert done.returncode == 1
    assert "warning    not all: it ended with 1: ValueError: no luck; " in done.stdout


@pytest.mark.parametrize(
    ("argv", "exit_code", "text"),
    [
        (("gone.py",), 78, "supervisor: cannot run 'gone.py': there is no such file in "),
        (("main.py", "--app-dir", "/nonexistent"), 78, "supervisor: cannot run in '/nonexistent': there is no such"),
        (("main.py", "--set", "A"), 64, "supervisor env detect: --set 'A': it reads NAME=VALUE"),
        (("main.py", "--seconds", "0"), 64, "supervisor env detect: --seconds 0: more than 0, 3600 at most"),
        (("main.py", "more"), 64, "usage: supervisor env detect"),
    ],
)
def test_mistakes_are_told_with_their_exit_code(argv: tuple[str, ...], exit_code: int, text: str) -> None:
    done = run(*argv)
    assert (done.returncode, done.stdout) == (exit_code, "")
    assert done.stderr.startswith(text)


def test_the_preloads_are_in_the_package() -> None:
    """They ship in the wheel as all files of the package do."""
    import supervisor

    folder = Path(supervisor.__file__).parent / "detect/preload"
    assert {path.name for path in folder.rglob("*.*") if "__pycache__" not in path.parts} == {
        "node.cjs",
        "esbuild.cjs",
        "sitecustomize.py",
        "typescript.cjs",
    }
