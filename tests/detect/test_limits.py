"""Apps that fail, never end, flood or send garbage: what was read is told, and why that may not be all."""

from __future__ import annotations

import os
import subprocess

import anyio
import pytest

from supervisor.detect import attempt
from supervisor.detect.model import DetectionError
from supervisor.detect.records import Records
from tests.detect.conftest import App, found

pytestmark = pytest.mark.anyio


async def test_an_app_that_fails_half_way_still_tells_what_it_read(app: App) -> None:
    app.write(
        "main.js",
        "process.env.EARLY\nconst url = process.env.DATABASE_URL\nif (!url) throw new Error('DATABASE_URL')\n"
        "require('node:net').connect(9, '127.0.0.1', () => process.env.LATE)",
    )
    detected = await app.detect("main.js")
    assert found(detected) == ({"DATABASE_URL"}, {"EARLY"})
    assert not detected.complete
    assert detected.why.startswith("it ended with 1: Error: connect ECONNREFUSED 127.0.0.1:9")
    assert "made-up values for DATABASE_URL: give real ones with --set NAME=VALUE" in detected.why


async def test_a_value_that_is_given_takes_an_app_further(app: App) -> None:
    app.write("main.py", "import os\nif os.environ['STAGE'] != 'blue': raise ValueError('STAGE')\nos.environ['A']\n")
    assert found(await app.detect("main.py")) == ({"STAGE"}, set())
    assert found(await app.detect("main.py", STAGE="blue")) == ({"A"}, {"STAGE"})


def test_quiet_is_a_second_without_a_read_and_with_hardly_any_work() -> None:
    def looks(*seen: tuple[float, float, bool]) -> list[attempt.Sample]:
        return [attempt.Sample(*each) for each in seen]

    assert not attempt.is_quiet(looks((0.0, 0.0, False), (0.9, 0.0, False)))
    assert attempt.is_quiet(looks((0.0, 3.0, False), (0.5, 3.0, True), (1.0, 3.1, False)))
    assert not attempt.is_quiet(looks((0.0, 3.0, False), (1.0, 3.5, False)))
    assert not attempt.is_quiet(looks((0.0, 3.0, True), (0.5, 3.0, True), (1.0, 3.0, False)))


async def test_a_value_that_is_given_is_not_quoted(app: App) -> None:
    app.write("main.py", "import os\nraise ValueError('no ' + os.environ['DATABASE_URL'])\n")
    detected = await app.detect("main.py", DATABASE_URL="postgres://user:hunter2@db/x")
    assert detected.why.startswith("it ended with 1: ValueError: no ***; ")


async def test_an_endless_app_is_ended_at_the_deadline(app: App) -> None:
    mark = f"ENDLESS_{os.getpid()}"
    app.write("main.py", f"import os, sys\nos.getenv('A')\nwhile True: {mark} = 1\n")
    detected = await app.detect("main.py", seconds=2.0)
    assert found(detected) == (set(), {"A"})
    assert detected.why == "it was still at work after 2 s; give it longer with --seconds"
    running = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, timeout=20, check=True)
    assert str(app.folder) not in running.stdout


async def test_a_cancelled_detection_leaves_nothing_running(app: App) -> None:
    app.write("main.py", "import os, time\nos.getenv('A')\nwhile True: pass\n")
    with anyio.move_on_after(1.5) as scope:
        await app.detect("main.py")
    assert scope.cancelled_caught
    running = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, timeout=20, check=True)
    assert str(app.folder) not in running.stdout


async def test_garbage_that_an_app_prints_is_harmless(app: App) -> None:
    app.write(
        "main.py",
        "import os, sys\nos.getenv('A')\nsys.stdout.buffer.write(os.urandom(200_000) + b'\\n' * 1000)\n"
        'print(\'{"name": "FORGED", "by": "app", "absent": true}\')\n'
        "sys.exit('\\x1b[2J\\x1b]0;title\\x07failed\\x1b[31m: \\u202eno reason\\x9b')\n",
    )
    detected = await app.detect("main.py")
    assert found(detected) == (set(), {"A"})
    assert detected.why.startswith("it ended with 1: failed: no reason; ")


async def test_garbage_in_the_records_is_dropped(app: App) -> None:
    app.write(
        "main.py",
        "import os\nwith open(os.environ['SUPERVISOR_DETECT_RECORDS'], 'wb', buffering=0) as pipe:\n"
        "    lines = os.urandom(3000), b'[' * 4000, b'{\"name\": \"\\x1b[2J\"}', b'x' * 70_000, b'{\"name\": 1}'\n"
        "    for line in lines:\n"
        "        pipe.write(line + b'\\n')\nos.getenv('A')\n",
    )
    assert found(await app.detect("main.py")) == (set(), {"A"})


async def test_more_records_than_are_taken_end_the_run(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt, "Records", lambda: Records(limit=500))
    app.write("main.js", "for (let number = 0; ; number++) process.env[`NAME_${number}`]")
    detected = await app.detect("main.js")
    assert len(detected.optional) == 500
    assert detected.why == "it sent more records than are taken; variables may be missing"


async def test_an_app_that_prints_without_end_is_still_heard(app: App) -> None:
    app.write("main.py", "import os\nos.getenv('A')\nwhile True: print('x' * 1000)\n")
    detected = await app.detect("main.py", seconds=2.0)
    assert found(detected) == (set(), {"A"})


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("gone.js", "cannot run 'gone.js': there is no such file in "),
        ("bun run x.ts", "cannot detect what 'bun run x.ts' reads: bun takes no part in it"),
        ("deno.sh", "cannot detect what 'deno.sh' reads: deno takes no part in it"),
        ("notes.txt", "cannot tell what runs 'notes.txt': neither its name"),
        ("no-such-program --x", "cannot run the entry: there is no program 'no-such-program' on the PATH"),
        ("node 'x", 'cannot run "node \'x": No closing quotation; give a file'),
        ("", "cannot run an empty entry; give a file"),
    ],
)
async def test_an_entry_that_cannot_be_run_is_an_error(app: App, entry: str, expected: str) -> None:
    app.write("notes.txt", "text")
    app.write("deno.sh", "#!/usr/bin/env -S deno run\n", mode=0o755)
    with pytest.raises(DetectionError) as raised:
        await app.detect(entry)
    assert str(raised.value).startswith(expected)


async def test_no_node_is_an_error(app: App) -> None:
    app.write("main.js", "")
    with pytest.raises(DetectionError, match="cannot run the entry: there is no program 'node' on the PATH"):
        await app.detect("main.js", path=str(app.folder))


@pytest.mark.parametrize(
    ("name", "source", "quoted"),
    [
        ("main.js", "const = 1", "SyntaxError: Unexpected token '='"),
        ("main.py", "def (:", "SyntaxError: invalid syntax"),
    ],
)
async def test_an_entry_with_a_syntax_error_is_quoted(app: App, name: str, source: str, quoted: str) -> None:
    app.write(name, source)
    with pytest.raises(DetectionError) as raised:
        await app.detect(name)
    assert f"cannot detect what '{name}' reads: it ended with 1 before it had read anything" in str(raised.value)
    assert f"  {quoted}" in str(raised.value)
