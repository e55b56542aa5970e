"""The command line as users run it: a real process against a real control server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from supervisor import __version__
from supervisor.cli.app import main
from supervisor.core.events import Notice
from supervisor.core.requests import Canary, Outcome, Request, Result, Verb
from supervisor.observe.status import StatusFold
from tests.triggers.control_rig import LIMIT_SECONDS, Rig, serving

pytestmark = pytest.mark.anyio

_NAMES = ("SUPERVISOR_SOCKET", "SUPERVISOR_RUNTIME_DIR", "SUPERVISOR_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME")


def _environ(**variables: str) -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in _NAMES}
    return environ | {"HOME": "/nonexistent", **variables}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    rig = Rig(tmp_path / "control.sock")
    rig.status = StatusFold(services=("postgres", "redis"), apps=("app",)).as_dict() | {"state": "running"}
    return rig


async def run(rig: Rig | None, *argv: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command line; its environment names the rig's socket."""
    environ = _environ(**({"SUPERVISOR_SOCKET": str(rig.path)} if rig else {}), **variables)
    command = [sys.executable, "-m", "supervisor", *argv]
    return await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environ)
    )


@pytest.mark.parametrize(
    ("state", "code"),
    [("running", 0), ("degraded", 0), ("starting", 3), ("failed", 3), ("stopping", 3), ("initializing", 3)],
)
async def test_status_exits_with_0_while_it_runs_and_3_otherwise(rig: Rig, state: str, code: int) -> None:
    rig.status["state"] = state
    async with serving(rig):
        done = await run(rig, "status", "--json")
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (code, rig.status, "")


async def test_status_is_plain_text_without_a_terminal(rig: Rig) -> None:
    rig.status["services"][0] |= {"state": "failed", "error": "x" * 150}
    async with serving(rig):
        done = await run(rig, "status", COLUMNS="40")
    assert "\x1b" not in done.stdout
    assert "supervisor : running" in done.stdout
    assert [
        line.split()[0] for line in done.stdout.splitlines() if line.startswith(("app ", "postgres ", "redis "))
    ] == ["app", "postgres", "redis"]
    assert "x" * 150 in done.stdout  # nothing is cut or wrapped for a pipe


async def test_status_on_a_terminal_has_colours(rig: Rig) -> None:
    master, slave = pty.openpty()
    environ = _environ(SUPERVISOR_SOCKET=str(rig.path), TERM="xterm-256color")
    async with serving(rig):
        command = [sys.executable, "-m", "supervisor", "status"]
        code = await anyio.to_thread.run_sync(
            lambda: subprocess.run(command, stdout=slave, env=environ, timeout=LIMIT_SECONDS).returncode
        )
    os.close(slave)
    assert code == 0
    assert b"\x1b[32mrunning" in os.read(master, 65536)
    os.close(master)


@pytest.mark.parametrize(("verb", "code"), [("status", 3), ("reload", 69), ("logs", 69), ("events", 69)])
async def test_without_a_supervisor_it_says_where_it_looked(verb: str, code: int, tmp_path: Path) -> None:
    done = await run(None, verb, XDG_RUNTIME_DIR=str(tmp_path), XDG_STATE_HOME="/nowhere")
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr == (
        f"supervisor: cannot find a running supervisor: nobody answers on /run/supervisor/control.sock or "
        f"{tmp_path}/supervisor/control.sock or /nowhere/supervisor/run/control.sock; "
        f"start one with `supervisor run`, or name its socket with --socket or SUPERVISOR_SOCKET\n"
    )


async def test_socket_is_found_in_the_runtime_folder(rig: Rig) -> None:
    async with serving(rig):
        in_setting = await run(None, "status", SUPERVISOR_RUNTIME_DIR=str(rig.path.parent))
        given = await run(None, "status", "--socket", str(rig.path), SUPERVISOR_SOCKET="/nowhere")
    assert (in_setting.returncode, given.returncode) == (0, 0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_socket_of_another_user_is_a_matter_of_privilege(open_folder: Path) -> None:
    rig = Rig(open_folder / "control.sock")
    # A first run loads what is imported late: that other user may not be able to read this Python.
    code = (
        "import os, sys; from supervisor.cli.app import main; main(['status', '--socket', '/nowhere']); "
        "os.setuid(65534); sys.exit(main(['reload']))"
    )
    environ = _environ(SUPERVISOR_SOCKET=str(rig.path))
    async with serving(rig):
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environ)
        )
    assert (done.returncode, rig.requests) == (77, [])
    assert "permission denied; run this as root or as the user the supervisor runs as" in done.stderr


async def test_reload_waits_and_tells_the_outcome(rig: Rig) -> None:
    async with serving(rig):
        done = await run(rig, "reload")
    assert (done.returncode, done.stdout) == (0, "reload: ok in 0.50 s (start 0.25 s)\n")
    assert [request.verb for request in rig.requests] == [Verb.RELOAD]


async def test_rejected_reload_exits_with_1_and_its_reason(rig: Rig) -> None:
    rig.outcome = Outcome(result=Result.REJECTED, reason="cannot apply 0002_b.sql: syntax error")
    async with serving(rig):
        done = await run(rig, "reload")
        as_json = await run(rig, "reload", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "reload: rejected: cannot apply 0002_b.sql: syntax error\n"
    assert (as_json.returncode, json.loads(as_json.stdout)["reason"]) == (1, rig.outcome.reason)


async def test_reload_need_not_wait(rig: Rig) -> None:
    rig.gate = anyio.Event()
    async with serving(rig):
        done = await run(rig, "reload", "--no-wait")
    assert (done.returncode, rig.finished) == (0, [])
    assert "accepted" in done.stdout


@pytest.mark.parametrize(
    ("argv", "canary"),
    [
        (["--canary", "5%", "--for", "60s"], Canary(5, 60)),
        (["--canary", "0.5", "--for", "10m"], Canary(0.5, 600)),
        (["--canary", "50%", "--for", "1.5h"], Canary(50, 5400)),
        (["--canary", "5", "--for", "30"], Canary(5, 30)),
    ],
)
async def test_reload_takes_a_canary_in_words_of_people(rig: Rig, argv: list[str], canary: Canary) -> None:
    async with serving(rig):
        done = await run(rig, "reload", *argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert [request.canary for request in rig.requests] == [canary]


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--canary", "5%"], "--canary PERCENT and --for TIME go together"),
        (["--for", "60s"], "--canary PERCENT and --for TIME go together"),
        (["--canary", "120%", "--for", "60s"], "cannot use --canary 120%"),
        (["--canary", "nan", "--for", "60s"], "cannot use --canary nan"),
        (["--canary", "5%", "--for", "2d"], "cannot use --for 2d"),
        (["--canary", "5%", "--for", "25h"], "cannot use --for 25h"),
        (["--promote", "--abort"], "three different things"),
        (["--canary", "5%", "--for", "60s", "--abort"], "three different things"),
    ],
)
async def test_canary_that_cannot_be_is_a_usage_error(rig: Rig, argv: list[str], text: str) -> None:
    async with serving(rig):
        done = await run(rig, "reload", *argv)
    assert (done.returncode, rig.requests) == (64, [])
    assert text in done.stderr


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.ABORT])
async def test_canary_in_hand_is_decided_by_an_option(rig: Rig, verb: Verb) -> None:
    async with serving(rig):
        done = await run(rig, "reload", f"--{verb}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{verb} the canary: ok")
    assert [request.verb for request in rig.requests] == [verb]


async def test_canary_need_not_be_waited_for(rig: Rig) -> None:
    rig.gate = anyio.Event()
    async with serving(rig):
        done = await run(rig, "reload", "--canary", "5%", "--for", "60s", "--no-wait")
        assert (done.returncode, rig.finished) == (0, [])
        assert [request.canary for request in rig.requests] == [Canary(5, 60)]


async def test_rolled_back_reload_exits_with_1_and_its_reason(rig: Rig) -> None:
    rig.outcome = Outcome(result=Result.ROLLED_BACK, reason="generation 1 serves again")
    async with serving(rig):
        done = await run(rig, "reload")
    assert (done.returncode, done.stdout) == (1, "")
    assert "generation 1 serves again" in done.stderr


async def test_supervisor_that_goes_away_before_it_answers_is_unreachable(rig: Rig) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        listener = await anyio.create_unix_listener(rig.path)

        async def hang_up(connection: anyio.abc.SocketStream) -> None:
            async with connection:
                with suppress(anyio.EndOfStream):  # the first connection only looks who answers
                    await connection.receive()

        async with listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, hang_up)
            done = await run(rig, "reload")
            group.cancel_scope.cancel()
    assert done.returncode == 69
    assert "the supervisor hung up before it answered" in done.stderr


@pytest.mark.parametrize("verb", ["restart", "stop", "start"])
async def test_verb_goes_to_the_app_or_the_service_of_that_name(rig: Rig, verb: str) -> None:
    async with serving(rig):
        codes = [(await run(rig, verb, name)).returncode for name in ("app", "redis")]
    assert codes == [0, 0]
    source = f"api uid {os.geteuid()}"
    assert rig.requests == [Request(Verb(verb), source, "app"), Request(Verb(verb), source, "redis")]


async def test_unknown_name_is_a_usage_error_with_a_hint(rig: Rig) -> None:
    async with serving(rig):
        done = await run(rig, "stop", "postgre")
    assert (done.returncode, rig.requests) == (64, [])
    assert done.stderr == (
        "supervisor: cannot stop 'postgre': no such app or service; did you mean 'postgres'? "
        "known: app, postgres, redis\n"
    )


async def test_logs_of_one_source_are_as_it_wrote_them(rig: Rig) -> None:
    for number in range(3):
        rig.logs.ring("redis").add(f"line {number}  ")
    async with serving(rig):
        done = await run(rig, "logs", "redis", "-n", "2")
        unknown = await run(rig, "logs", "a name")
    assert (done.returncode, done.stdout) == (0, "line 1  \nline 2  \n")
    assert (unknown.returncode, unknown.stderr) == (
        64,
        "supervisor: cannot read the log of 'a name': no such source; known: redis\n",
    )


async def test_logs_of_all_sources_name_them(rig: Rig) -> None:
    rig.logs.ring("redis").add("ready")
    rig.logs.ring("app").add("listening")
    async with serving(rig):
        done = await run(rig, "logs")
        as_json = await run(rig, "logs", "app", "--json")
    assert done.stdout == "[redis] ready\n[app] listening\n"
    assert json.loads(as_json.stdout)["text"] == "listening"


async def test_followed_logs_come_as_they_are_written_and_end_by_interrupt(rig: Rig) -> None:
    rig.logs.ring("app").add("first")
    command = [sys.executable, "-m", "supervisor", "logs", "app", "-f"]
    async with serving(rig):
        environ = _environ(SUPERVISOR_SOCKET=str(rig.path))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            for text in ("first", "second", "third"):
                assert await anyio.to_thread.run_sync(process.stdout.readline) == f"{text}\n".encode()
                rig.logs.ring("app").add({"first": "second", "second": "third", "third": "last"}[text])
            process.send_signal(signal.SIGINT)
            code = await anyio.to_thread.run_sync(lambda: process.wait(LIMIT_SECONDS))
            assert (code, process.stderr.read()) == (130, b"")


async def test_reader_that_stops_reading_causes_no_traceback(rig: Rig) -> None:
    for number in range(5000):
        rig.logs.ring("app").add(f"line {number}")
    shell = f"{sys.executable} -m supervisor logs app -n 5000 | head -n 1"
    async with serving(rig):
        environ = _environ(SUPERVISOR_SOCKET=str(rig.path))
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(shell, shell=True, capture_output=True, text=True, env=environ)
        )
    assert (done.stdout, done.stderr) == ("line 0\n", "")


async def test_events_are_one_line_each(rig: Rig) -> None:
    rig.events.publish(Notice(message="two words", detail="x"))
    async with serving(rig):
        done = await run(rig, "events")
        as_json = await run(rig, "events", "--json")
    assert done.stdout.endswith(' notice message="two words" detail=x\n')
    assert json.loads(as_json.stdout)["message"] == "two words"


async def test_watch_shows_every_change_and_ends_with_the_supervisor(rig: Rig) -> None:
    command = [sys.executable, "-m", "supervisor", "status", "--watch", "--json"]
    async with serving(rig) as group:
        rig.events.publish(Notice(message="before"))
        environ = _environ(SUPERVISOR_SOCKET=str(rig.path))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ) as process:
            assert process.stdout is not None
            first = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
            rig.status["state"] = "degraded"
            rig.events.publish(Notice(message="changed"))
            second = json.loads(await anyio.to_thread.run_sync(process.stdout.readline))
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                code = await anyio.to_thread.run_sync(lambda: process.wait(LIMIT_SECONDS))
    assert (first["state"], second["state"], code) == ("running", "degraded", 3)


async def test_version_is_printed() -> None:
    done = await run(None, "--version")
    assert (done.returncode, done.stdout) == (0, f"supervisor {__version__}\n")


@pytest.mark.parametrize("argv", [["bogus"], ["logs", "-n", "many"], ["status", "--bogus"], ["restart"]])
async def test_usage_error_exits_with_64(argv: list[str]) -> None:
    done = await run(None, *argv)
    assert (done.returncode, done.stdout) == (64, "")
    assert "Usage" in done.stderr


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    commands = ("status", "reload", "restart", "stop", "start", "logs", "events", "health", "doctor", "run", "init")
    assert [command for command in commands if f" {command} " not in text] == []


def test_init_is_handed_over_with_its_arguments_untouched() -> None:
    code = "import sys; from supervisor.cli.app import main; sys.exit(main(['init', '--', 'sh', '-c', 'exit 7']))"
    assert subprocess.run([sys.executable, "-c", code], timeout=LIMIT_SECONDS).returncode == 7
