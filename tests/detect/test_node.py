"""What a Node app reads, for each way of reading, with the real Node."""

from __future__ import annotations

import pytest

from tests.detect.conftest import App, found, names

pytestmark = pytest.mark.anyio

WAYS = {
    "property": ("process.env.A; process.env['B']", set(), {"A", "B"}),
    "taken apart": ("const { A, B: b = 'x', ...rest } = process.env", set(), {"A", "B"}),
    "in": ("'A' in process.env", set(), {"A"}),
    "has own": ("Object.hasOwn(process.env, 'A'); process.env.hasOwnProperty('B')", set(), {"A", "B"}),
    "descriptor": ("Object.getOwnPropertyDescriptor(process.env, 'A')", set(), {"A"}),
    "computed name": ("const part = 'B'; process.env[`A_${part}`]", set(), {"A_B"}),
    "kept object": ("const { env } = process; env.A", set(), {"A"}),
    "enumeration": (
        "({ ...process.env }); Object.keys(process.env); Object.entries(process.env); JSON.stringify(process.env)\n"
        "for (const name in process.env) process.env[name]\n"
        "Object.assign({}, process.env)",
        set(),
        set(),
    ),
    "set, then read": ("process.env.A = '1'; process.env.A; delete process.env.B; process.env.B", set(), set()),
    "read, then set": ("process.env.A ||= 'x'; process.env.A", set(), {"A"}),
    "new object": ("process.env = { ...process.env, A: '1' }; process.env.B", set(), {"B"}),
    "throw at once": ("if (!process.env.A) throw new Error('bad configuration')", {"A"}, set()),
    "throw with the name": (
        "const { A, B } = process.env\nprocess.env.C\nif (!A) throw new Error('set ' + 'A' + '!')",
        {"A"},
        {"B", "C"},
    ),
    "one of the last read": (
        "const { A, B } = process.env\nconst bad = !A || !B\nif (bad) process.exit(2)",
        {"A", "B"},
        set(),
    ),
    "one after the other": (
        "const need = (name) => { if (!process.env[name]) throw new Error(`${name} is not set`) }\n"
        "need('A'); process.env.OPTIONAL; need('B'); need('C')",
        {"A", "B", "C"},
        {"OPTIONAL"},
    ),
    "all at once": (
        "const missing = ['A', 'B'].filter((name) => !process.env[name]); process.env.C\n"
        "if (missing.length) { console.error('missing: ' + missing); process.exit(1) }",
        {"A", "B"},
        {"C"},
    ),
    "either of two": ("if (!process.env.A && !process.env.B) throw new Error('A or B')", {"B"}, {"A"}),
    "rejected promise": ("Promise.resolve().then(() => { if (!process.env.A) throw new Error('A') })", {"A"}, set()),
    "caught": ("try { if (!process.env.A) throw new Error('A') } catch {}", set(), {"A"}),
}


@pytest.mark.parametrize("way", WAYS)
async def test_node_reading_is_found(app: App, way: str) -> None:
    source, required, optional = WAYS[way]
    app.write("main.js", source)
    detected = await app.detect("main.js")
    assert (found(detected), detected.why) == ((required, optional), "")


async def test_node_module_imports_are_found(app: App) -> None:
    app.write("main.mjs", "import { env } from 'node:process'\nimport './other.mjs'\nenv.A\nawait 0\n")
    app.write("other.mjs", "import process from 'process'\n\nexport const b = process.env.B ?? 'x'\n")
    detected = await app.detect("main.mjs")
    assert {each.name: app.at(each) for each in detected.optional} == {"A": ["main.mjs:3"], "B": ["other.mjs:3"]}


async def test_node_worker_threads_and_forked_processes_are_listened_to(app: App) -> None:
    app.write("worker.js", "process.env.IN_WORKER")
    app.write("child.mjs", "process.env.IN_CHILD")
    app.write(
        "main.js",
        "new (require('node:worker_threads').Worker)(__dirname + '/worker.js')\n"
        "require('node:child_process').fork(__dirname + '/child.mjs')\n"
        "require('node:child_process').execFileSync(process.execPath, ['-e', 'process.env.IN_EVAL'])",
    )
    assert found(await app.detect("main.js")) == (set(), {"IN_WORKER", "IN_CHILD", "IN_EVAL"})


async def test_node_defaults_are_read_from_the_code(app: App) -> None:
    app.write(
        "main.js",
        "const a = process.env.A ?? 'x'\nconst b = process.env['B'] || 12\n"
        'const {\n  C = "y",\n  D,\n  E: e = true,\n} = process.env\n',
    )
    detected = await app.detect("main.js")
    assert {v.name: v.default for v in detected.optional} == {"A": "x", "B": 12, "C": "y", "D": None, "E": True}


LIBRARY = """
process.env.AT_LOAD
exports.check = (env) => { if (!env.HANDED) throw new Error('invalid environment') }
exports.named = (name) => process.env[name]
exports.connect = () => process.env.OF_LIBRARY
"""


async def test_what_a_library_reads_for_itself_is_told_apart(app: App) -> None:
    app.write("node_modules/lib/index.js", LIBRARY)
    app.write(
        "main.js",
        "const lib = require('lib')\nlib.check(process.env)\nlib.named('BY_NAME')\nlib.connect()\n"
        "process.env.NODE_ENV; process.env.HOME",
    )
    detected = await app.detect("main.js")
    assert found(detected) == ({"HANDED"}, {"BY_NAME", "NODE_ENV"})
    assert {"AT_LOAD", "OF_LIBRARY", "HOME"} <= names(detected.by_libraries)
    handed = detected.required[0]
    assert (app.at(handed), handed.library) == (["main.js:2"], f"{app.folder}/node_modules/lib/index.js")


async def test_what_a_library_cannot_do_without_is_required(app: App) -> None:
    app.write("node_modules/sdk/index.js", "if (!process.env.SDK_KEY) throw new Error('SDK_KEY is missing')")
    app.write("main.js", "require('sdk')")
    assert found(await app.detect("main.js")) == ({"SDK_KEY"}, set())


async def test_a_server_is_ended_when_it_is_quiet(app: App) -> None:
    app.write(
        "main.js",
        "const url = new URL(process.env.DATABASE_URL)\nif (url.protocol !== 'postgres:') throw new Error('no')\n"
        "require('http').createServer((_, answer) => answer.end(process.env.LATER)).listen(process.env.PORT || 3000)\n"
        "setInterval(() => process.env.AGAIN, 50)",
    )
    detected = await app.detect("main.js")
    assert (found(detected), detected.why) == (({"DATABASE_URL"}, {"PORT", "AGAIN"}), "")
    assert detected.seconds < 20


async def test_env_files_of_the_app_do_not_answer_for_the_environment(app: App) -> None:
    app.write(".env", "A=from-file\n")
    app.write(".env.example", "B=example\n")
    app.write(
        "main.js",
        "const { readFileSync } = require('node:fs')\n"
        "if (readFileSync('.env.example', 'utf8') !== 'B=example\\n') process.exit(9)\n"
        "const lines = readFileSync('.env', 'utf8').split('\\n').filter(Boolean)\n"
        "for (const line of lines) process.env[line.split('=')[0]] = 1\n"
        "if (!process.env.A) throw new Error('A')",
    )
    detected = await app.detect("main.js")
    assert found(detected) == ({"A"}, set())
    assert detected.hidden == (f"{app.folder}/.env",)


async def test_going_through_all_that_there_is_reads_no_variable(app: App) -> None:
    app.write(
        "all.js", "// NAMED_HERE\n({ ...process.env }); Object.entries(process.env); Object.assign({}, process.env)"
    )
    app.write("main.js", "require('./all.js')\nfor (const name in process.env) process.env[name]")
    assert found(await app.detect("main.js", NAMED_HERE="x", NOT_NAMED="x")) == (set(), set())
