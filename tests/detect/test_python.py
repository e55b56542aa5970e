"""What a Python app reads, for each way of reading, with a real Python."""

from __future__ import annotations

import sys

import pytest

from tests.detect.conftest import App, found, names

pytestmark = pytest.mark.anyio

WAYS = {
    "get": ("os.environ.get('A'); os.environ.get('B', 'x')", set(), {"A", "B"}),
    "getenv": ("os.getenv('A'); os.getenv('B', 'x')", set(), {"A", "B"}),
    "bytes": ("os.environb.get(b'A'); os.getenvb(b'B'); b'C' in os.environb", set(), {"A", "B", "C"}),
    "imported names": ("from os import environ, getenv\nenviron.get('A'); getenv('B')", set(), {"A", "B"}),
    "in": ("'A' in os.environ; 'B' not in os.environ", set(), {"A", "B"}),
    "item": ("os.environ['A']", {"A"}, set()),
    "item, caught": ("try: os.environ['A']\nexcept KeyError: pass", set(), {"A"}),
    "pop": ("os.environ.pop('A', None); os.environ.pop('B')", {"B"}, {"A"}),
    "setdefault": ("os.environ.setdefault('A', 'x'); os.environ['A']", set(), {"A"}),
    "set, then read": ("os.environ['A'] = '1'; os.environ['A']; del os.environ['A']; os.getenv('A')", set(), set()),
    "enumeration": (
        "dict(os.environ); {**os.environ}; os.environ.copy(); list(os.environ.items()); list(os.environ.values())\n"
        "sorted(os.environ); os.environ | {'X': '1'}; repr(os.environ); len(os.environ)\n"
        "for name in os.environ: os.environ[name]",
        set(),
        set(),
    ),
    "standard library": ("import string; string.Template('$A').safe_substitute(os.environ)", set(), {"A"}),
    "one after the other": ("os.environ['A']; os.getenv('C'); os.environ['B']", {"A", "B"}, {"C"}),
    "exit with the name": ("if not os.getenv('A'): sys.exit('A is not set')", {"A"}, set()),
    "exit without": ("a, b = os.getenv('A'), os.getenv('B')\nif not a: raise SystemExit(3)", {"A"}, {"B"}),
    "either of two": ("os.environ.get('A') or os.environ['B']", {"B"}, {"A"}),
    "number": ("int(os.environ['WORKER_COUNT'])", {"WORKER_COUNT"}, set()),
    "another process": (
        "import subprocess; subprocess.run([sys.executable, '-c', 'import os; os.getenv(\"A\")'], check=True)",
        set(),
        {"A"},
    ),
    "forked process": (
        "pid = os.fork()\nif pid == 0:\n    os.getenv('A'); os._exit(0)\nos.waitpid(pid, 0)",
        set(),
        {"A"},
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_python_reading_is_found(app: App, way: str) -> None:
    source, required, optional = WAYS[way]
    app.write("main.py", f"import os, sys\n{source}\n")
    detected = await app.detect("main.py")
    assert (found(detected), detected.why) == ((required, optional), "")


async def test_python_defaults_and_places_are_told(app: App) -> None:
    app.write(
        "main.py",
        "import os\nfrom settings import read\na = os.getenv('A', 'x')\nb = os.getenv('B') or 'y'\n"
        "c = int(os.environ.get('C', 8))\nread()\n",
    )
    app.write("settings.py", "import os\n\ndef read():\n    return os.environ.get('D', False)\n")
    detected = await app.detect("main.py")
    assert {v.name: (v.default, app.at(v)) for v in detected.optional} == {
        "A": ("x", ["main.py:3"]),
        "B": ("y", ["main.py:4"]),
        "C": (8, ["main.py:5"]),
        "D": (False, ["settings.py:4"]),
    }


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ("python -m shop", "shop/__main__.py"),
        ("shop.web:api.app", "shop/web.py"),
        ("bin/serve", "bin/serve"),
        ("bin/serve --quick", "bin/serve"),
        ("python3 bin/serve", "bin/serve"),
        ("bin/shell", "bin/serve"),
    ],
)
async def test_each_form_of_an_entry_is_run(app: App, entry: str, file: str) -> None:
    app.write("shop/__init__.py", "")
    app.write("shop/__main__.py", "import os\nos.environ['A']\n")
    app.write("shop/web.py", "import os\nos.environ['A']\nclass api:\n    app = 1\n")
    app.write("bin/serve", "#!/usr/bin/env python3\nimport os\nos.environ['A']\n", mode=0o755)
    app.write("bin/shell", "#!/bin/sh\nexec bin/serve\n", mode=0o755)
    detected = await app.detect(entry)
    assert found(detected) == ({"A"}, set())
    assert [place.partition(":")[0] for place in app.at(detected.required[0])] == [file]


async def test_the_python_of_the_apps_own_environment_is_used(app: App) -> None:
    app.write(".venv/bin/python", '#!/bin/sh\nexport MARK=1\nexec python3 "$@"\n', mode=0o755)
    app.write("main.py", "import os\nos.environ['MARK']; os.environ['A']\n")
    assert found(await app.detect("main.py")) == ({"A"}, {"MARK"})


async def test_fields_of_pydantic_settings_are_read(app: App) -> None:
    app.write(
        "main.py",
        "from pydantic_settings import BaseSettings, SettingsConfigDict\n\nclass Settings(BaseSettings):\n"
        "    model_config = SettingsConfigDict(env_prefix='SHOP_', env_file='.env')\n"
        "    key: str\n    workers: int\n    level: str = 'info'\n\nSettings()\n",
    )
    detected = await app.detect(f"{sys.executable} main.py")
    assert (found(detected), detected.why) == (({"SHOP_KEY", "SHOP_WORKERS"}, {"SHOP_LEVEL"}), "")
    assert {v.name: v.kind for v in detected.required} == {"SHOP_KEY": "text", "SHOP_WORKERS": "int"}
    assert detected.optional[0].default == "info"


LIBRARY = """
import os
os.environ.get("AT_LOAD")
def config(name, default=None): return os.environ[name] if default is None else os.environ.get(name, default)
def connect(): os.environ.get("OF_LIBRARY")
"""


async def test_what_a_library_reads_for_itself_is_told_apart(app: App) -> None:
    app.write("site-packages/lib.py", LIBRARY)
    app.write(
        "main.py",
        "import os\nfrom lib import config, connect\nconfig('NEEDED')\nconfig('LEVEL', default='info')\nconnect()\n"
        "os.path.expanduser('~'); os.getenv('HOME')\n",
    )
    detected = await app.detect("main.py", PYTHONPATH="site-packages")
    assert found(detected) == ({"NEEDED"}, {"LEVEL"})
    assert {"AT_LOAD", "OF_LIBRARY", "HOME"} <= names(detected.by_libraries)
    assert detected.optional[0].default == "info"


async def test_env_files_read_by_python_dotenv_do_not_answer_for_the_environment(app: App) -> None:
    app.write(".env", "A=from-file\n")
    app.write("main.py", "import os\nfrom dotenv import load_dotenv\nload_dotenv()\nos.environ['A']\n")
    assert found(await app.detect(f"{sys.executable} main.py")) == ({"A"}, set())


async def test_going_through_all_that_there_is_reads_no_variable(app: App) -> None:
    app.write("everything.py", "# NAMED_HERE\nimport os\ndict(os.environ); {**os.environ}; list(os.environ.items())\n")
    app.write("main.py", "import os, everything\nfor name in os.environ: os.environ[name]\n")
    assert found(await app.detect("main.py", NAMED_HERE="x", NOT_NAMED="x")) == (set(), set())


async def test_a_sitecustomize_of_the_app_still_gets_its_turn(app: App) -> None:
    app.write("start/sitecustomize.py", "import builtins\nbuiltins.STARTED = True\n")
    app.write("main.py", "import os, sitecustomize\nassert STARTED\nos.environ['A']\n")
    detected = await app.detect("main.py", PYTHONPATH="start")
    assert (found(detected), detected.why) == (({"A"}, set()), "")
