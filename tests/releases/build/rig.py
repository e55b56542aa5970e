"""An app's folder, builds of it, and the programs that read what was built."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.releases.build.build import Built, Order, build
from supervisor.releases.build.identity import Moment
from supervisor.releases.build.options import read_options

LIMIT_SECONDS = 60
MOMENT = Moment(datetime(2026, 5, 1, 12, 30, tzinfo=UTC), "a test")
FILES = {
    "server.js": "console.log('up')\n",
    "package.json": '{"name": "@org/shop", "version": "1.2.3"}\n',
    "dist/index.html": "<p>hello</p>\n",
    "dist/a/b.js": "b()\n",
    "dist-a": "sorts between dist and what is in it\n",
    "empty/.keep": "",
}


def make_tree(folder: Path, files: Mapping[str, str | bytes] = FILES) -> Path:
    """Files by path; a path with `/` at its end is an empty folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            place.mkdir(exist_ok=True)
        else:
            place.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def order(folder: Path, output: Path | None = None, **changes: Any) -> Order:
    """An order with a name, a version and a time of its own; `changes` are its fields."""
    options = read_options(folder, changes.pop("given", {}))
    values = {"app": "shop", "version": "1.2.3", "moment": MOMENT, "options": options, **changes}
    return Order(folder=folder, output=output if output is not None else folder / "dist-tarball", **values)


def build_in(folder: Path, output: Path | None = None, **changes: Any) -> Built:
    return build(order(folder, output, **changes))


def run(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """A program to its end; its failure is the test's unless `check=False`."""
    values = {"check": True, "capture_output": True, "text": True, "timeout": LIMIT_SECONDS, **options}
    return subprocess.run([str(word) for word in words], **values)


def left_in(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}
