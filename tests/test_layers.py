"""Who may import whom: core < process, store, probe < engine < capabilities < stack < planning < wiring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "supervisor"
BASE = {"core", "process", "store", "probe"}
ALLOWED = {
    "core": set[str](),
    "process": {"core"},
    "store": {"core"},
    "probe": {"core"},
    "engine": BASE,
    "environment": BASE,
    "services": BASE | {"engine"},
    "app": BASE,
    # Wiring with rooms of their own: what a mode's services are, and what an app is by the settings.
    "stack": BASE | {"engine", "services", "state"},
    "planning": BASE | {"stack", "services", "app", "environment", "migrations", "releases"},
    "migrations": BASE,
    "releases": BASE,
    "observe": BASE,
    "detect": BASE,
    "triggers": {"core"},
    "client": {"core"},
    "cli": {"core", "client"},
}
LIBRARIES = {
    "docker": {"engine"},
    "asyncpg": {"probe", "migrations", "services"},
    "redis": {"probe", "migrations", "services"},
    "watchfiles": {"triggers"},
    "typer": {"cli"},
    "cryptography": {"store"},
    "minisign": {"releases"},
    "pathspec": {"releases"},
    "rich": {"client", "cli"},
}


def imports(path: Path, *, delayed: bool = True) -> Iterator[str]:
    """Modules imported by a file; with `delayed` also inside functions."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if delayed else tree.body:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def violations() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        for module in imports(path, delayed=room != "cli"):
            top, *below = module.split(".")
            if top == "supervisor" and below and room in ALLOWED and below[0] not in ALLOWED[room] | {room}:
                yield f"{path.relative_to(PACKAGE)} imports {module}"
            if top in LIBRARIES and room not in LIBRARIES[top]:
                yield f"{path.relative_to(PACKAGE)} imports {module}"


def test_every_import_points_down() -> None:
    assert list(violations()) == []


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_no_room_reaches_wiring(room: str) -> None:
    assert not ALLOWED[room] & {"daemon", "boot", "controller", "commands", "rollout"}


def test_every_room_has_its_rule() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms <= set(ALLOWED) | {"commands", "rollout"}
