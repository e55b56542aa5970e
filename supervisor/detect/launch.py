"""How an entry is run so that its reads are seen: argv, a clean environment with the preloads, what stays in sight."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.detect.attempt import PRELOAD, Launch
from supervisor.detect.entry import Entry
from supervisor.detect.typescript import Loader

_NODE_PRELOAD = PRELOAD / "node.cjs"
_PYTHON_PRELOAD = PRELOAD / "python"
# Examples are read by the app's checks of its configuration, and hold no secret.
_SHOWN = ("example", "sample", "template", "dist", "defaults", "schema")
_PROJECT = ("node_modules", "package.json", "pyproject.toml", ".git")


@dataclass(frozen=True)
class Order:
    """What the caller asks for. `given` is passed on to the app as it is."""

    entry: str
    app_dir: Path
    path: str
    language: str = "C.UTF-8"
    given: Mapping[str, str] | None = None
    seconds: float = 10.0


def make_launch(order: Order, entry: Entry, loader: Loader | None) -> Launch:
    """The run as it is done each time."""
    program, *rest = entry.argv
    options = loader.options if loader is not None else ()
    given = dict(order.given or {})
    node_options = " ".join(filter(None, (f'--require="{_NODE_PRELOAD}"', given.get("NODE_OPTIONS", ""))))
    python_path = os.pathsep.join(filter(None, (str(_PYTHON_PRELOAD), given.get("PYTHONPATH", ""))))
    environ = {
        "PATH": order.path,
        "LANG": order.language,
        **given,
        **(loader.environ if loader is not None else {}),
        "NODE_OPTIONS": node_options,
        "PYTHONPATH": python_path,
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return Launch(
        name="app",
        argv=(program, *options, *rest),
        app_dir=str(order.app_dir),
        environ=environ,
        keep=(*installations(program, order.path), *_projects(order.app_dir)),
        masked=tuple(given.values()),
        hidden=tuple(str(file) for file in dotenv_files(order.app_dir)),
    )


def installations(program: str, path: str) -> tuple[str, ...]:
    """Of the program and of what is on the PATH: /tmp and /run are masked, should they lie there."""
    folders = [os.path.dirname(program), os.path.dirname(os.path.realpath(program)), *path.split(os.pathsep)]
    return tuple(dict.fromkeys(os.path.dirname(folder) for folder in folders if os.path.isabs(folder)))


def _projects(folder: Path) -> list[str]:
    """The folders above that the app's code may be spread over: a workspace, or packages installed further up."""
    return [str(above) for above in folder.parents if any((above / mark).exists() for mark in _PROJECT)]


def dotenv_files(folder: Path) -> list[Path]:
    """Files that would give the app its variables: it is to be seen without them."""
    found = sorted(folder.glob(".env")) + sorted(folder.glob(".env.*"))
    return [file for file in found if file.is_file() and not file.name.endswith(_SHOWN)]
