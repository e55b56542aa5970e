"""How Node is made to take TypeScript: by the app's tsx, by itself, or by the app's esbuild. The choice is pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.detect.model import DetectionError

ESBUILD_PRELOAD = Path(__file__).parent / "preload/esbuild.cjs"
_REQUIRE = "require(require('node:path').resolve(process.argv[1]))"
_PRELOAD = Path(__file__).parent / "preload/typescript.cjs"
_STRIPS_WHEN_TOLD = (22, 6)
_TRANSFORMS_WHEN_TOLD = ((22, 7), (26, 0))
"""From and before: Node 26 has the option no more (tried with 22.12 to 26.10)."""
_TAKES_HOOKS = ((23, 5), (22, 15))
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.")


@dataclass(frozen=True)
class Loader:
    """What Node gets beside the entry."""

    name: str
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def choose_loader(version: tuple[int, int], app_dir: Path, *, has_tsx: bool, has_esbuild: bool) -> Loader:
    """The app's tsx, which takes all that TypeScript has; Node's own way; the app's esbuild.

    Raises DetectionError without any.
    """
    modules = app_dir / "node_modules"
    if has_tsx:
        return Loader("tsx", ("--import", (modules / "tsx/dist/loader.mjs").as_uri()))
    if _takes_hooks(version):
        return Loader("node", (*_own_options(version), f"--require={_PRELOAD}"))
    if has_esbuild:
        # Required, not started: in a package of modules Node would not ask for what can compile the entry.
        options = ("--enable-source-maps", f"--require={ESBUILD_PRELOAD}", "-e", _REQUIRE)
        return Loader("esbuild", options, {"SUPERVISOR_DETECT_ESBUILD": str(modules / "esbuild")})
    if version >= _STRIPS_WHEN_TOLD:  # names in imports have to be the files' own there
        return Loader("node", _own_options(version))
    raise DetectionError(
        f"cannot run a TypeScript entry: Node {version[0]}.{version[1]} does not take TypeScript by itself, and "
        f"neither tsx nor esbuild is in {str(modules)!r}; install Node 22.18 or newer, or run "
        f"`npm install --save-dev tsx` there, or give the built .js file"
    )


def _own_options(version: tuple[int, int]) -> tuple[str, ...]:
    """Enums, namespaces and parameter properties need more than stripping."""
    since, before = _TRANSFORMS_WHEN_TOLD
    if since <= version < before:
        return ("--experimental-transform-types", "--enable-source-maps")
    return ("--experimental-strip-types",) if version < since else ()


def _takes_hooks(version: tuple[int, int]) -> bool:
    newest, older = _TAKES_HOOKS
    return version >= newest or (version[0] == older[0] and version >= older)


def read_version(text: str) -> tuple[int, int]:
    """What `node --version` says; raises DetectionError for anything else."""
    found = _VERSION.match(text.strip())
    if found is None:
        raise DetectionError(f"cannot tell the version of node: it says {text[:80]!r}; check the node on the PATH")
    return int(found[1]), int(found[2])


def loader_for(version_text: str, app_dir: Path) -> Loader:
    """The choice, with a look into the app's node_modules."""
    modules = app_dir / "node_modules"
    return choose_loader(
        read_version(version_text),
        app_dir,
        has_tsx=(modules / "tsx/dist/loader.mjs").is_file(),
        has_esbuild=(modules / "esbuild/lib/main.js").is_file(),
    )
