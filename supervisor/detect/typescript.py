"""How Node is made to take TypeScript: by itself where it can, else with what the app has. The choice is pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.detect.model import DetectionError

ESBUILD_PRELOAD = Path(__file__).parent / "preload/esbuild.cjs"
_REQUIRE = "require(require('node:path').resolve(process.argv[1]))"
_STRIPS_BY_ITSELF = ((23, 6), (22, 18))
_STRIPS_WHEN_TOLD = (22, 6)
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.")


@dataclass(frozen=True)
class Loader:
    """What Node gets beside the entry."""

    name: str
    options: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)


def choose_loader(version: tuple[int, int], app_dir: Path, *, has_tsx: bool, has_esbuild: bool) -> Loader:
    """Node's own type stripping, the app's tsx, the app's esbuild; raises DetectionError without any."""
    if _strips(version):
        return Loader("node")
    if version >= _STRIPS_WHEN_TOLD:
        return Loader("node", ("--experimental-strip-types",))
    modules = app_dir / "node_modules"
    if has_tsx:
        return Loader("tsx", ("--import", (modules / "tsx/dist/loader.mjs").as_uri()))
    if has_esbuild:
        # Required, not started: in a package of modules Node would not ask for what can compile the entry.
        options = ("--enable-source-maps", f"--require={ESBUILD_PRELOAD}", "-e", _REQUIRE)
        return Loader("esbuild", options, {"SUPERVISOR_DETECT_ESBUILD": str(modules / "esbuild")})
    raise DetectionError(
        f"cannot run a TypeScript entry: Node {version[0]}.{version[1]} does not take TypeScript by itself, and "
        f"neither tsx nor esbuild is in {str(modules)!r}; install Node 22.18 or newer, or run "
        f"`npm install --save-dev tsx` there, or give the built .js file"
    )


def _strips(version: tuple[int, int]) -> bool:
    newest, older = _STRIPS_BY_ITSELF
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
