"""What a generation must show before requests go to it, and what is asked of one that serves."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import anyio
import pytest

from supervisor.app import gate
from supervisor.app.gate import HealthCheck, Pace, Passed, Refused, Terms, pass_gate, pause_seconds, watch_liveness
from supervisor.probe.http import HttpAnswer
from supervisor.probe.verdict import good, waiting
from supervisor.process.child import Child
from supervisor.process.output import Ring
from tests.app.front.haproxy_rig import running_reaper
from tests.app.front.http_app import app_at
from tests.app.rig import Word, until
from tests.e2e.harness import free_port
from tests.process.children import python

pytestmark = pytest.mark.anyio

TERMS = Terms(start_seconds=10)
SERVER = """
import os, http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == {path!r} else 404); self.end_headers()
    def log_message(self, *about): pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@asynccontextmanager
async def running(code: str, port: int) -> AsyncIterator[Child]:
    """A child with PORT; killed at the end."""
    async with running_reaper() as reaper:
        with anyio.fail_after(15):
            child = reaper.spawn(python(code, env={**os.environ, "PORT": str(port)}), Ring("app"))
            yield child
            await child.kill()


def test_probes_come_quickly_at_first_and_slower_later() -> None:
    assert (pause_seconds(0), pause_seconds(1.99), pause_seconds(2)) == (0.025, 0.025, 0.1)


@pytest.mark.parametrize(("path", "found"), [("/api/health", "/api/health"), ("/", "/")])
async def test_app_passes_on_its_health_path_or_else_on_the_root(path: str, found: str) -> None:
    port = free_port()
    async with running(SERVER.format(path=path), port) as child:
        result = await pass_gate(child, HealthCheck("http", port), Word(), TERMS)
    assert isinstance(result, Passed)
    assert result.path == found
    assert result.attempts >= 2


async def test_app_that_answers_on_no_path_is_refused_with_the_last_answer() -> None:
    port = free_port()
    async with running(SERVER.format(path="/none"), port) as child:
        result = await pass_gate(child, HealthCheck("http", port), Word(), Terms(start_seconds=1))
    assert isinstance(result, Refused)
    assert "404" in result.answer
    assert "not healthy after 1 s" in result.reason


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_stranger_on_the_port_does_not_pass_for_the_app(kind: str) -> None:
    port = free_port()
    async with app_at(port), running("import time; time.sleep(60)", port) as child:
        result = await pass_gate(child, HealthCheck(kind, port), Word(), Terms(start_seconds=0.4))
    assert isinstance(result, Refused)
    assert f"port {port} is held by pid {os.getpid()}" in result.answer
    assert sys.executable.rpartition("/")[2].rstrip("0123456789.") in result.answer


async def test_app_is_not_asked_before_it_says_that_it_is_ready() -> None:
    word, found = Word(), list[Passed | Refused]()
    async with running("import time; time.sleep(60)", 0) as child, anyio.create_task_group() as group:

        async def judge() -> None:
            terms = Terms(start_seconds=10, must_say_ready=True)
            found.append(await pass_gate(child, HealthCheck("none", 0), word, terms))

        group.start_soon(judge)
        await anyio.wait_all_tasks_blocked()
        assert found == []
        word.ready = True
    assert found == [Passed("", 2)]


async def test_app_that_never_says_so_is_refused_with_what_it_said() -> None:
    terms = Terms(start_seconds=0.1, must_say_ready=True)
    async with running("import time; time.sleep(60)", 0) as child:
        result = await pass_gate(child, HealthCheck("none", 0), Word(), terms)
    assert isinstance(result, Refused)
    assert result.answer == "it has said nothing"


async def test_app_has_to_live_for_a_while() -> None:
    async with running("import time; time.sleep(60)", 0) as child:
        started = anyio.current_time()
        assert await pass_gate(child, HealthCheck("none", 0), Word(), Terms(start_seconds=10, min_uptime_seconds=0.3))
        assert anyio.current_time() - started >= 0.3


async def test_app_that_asked_for_time_gets_it() -> None:
    async with running("import time; time.sleep(60)", 0) as child:
        started = anyio.current_time()
        word = Word(extended_until=started + 0.4)
        terms = Terms(start_seconds=0.05, must_say_ready=True)
        result = await pass_gate(child, HealthCheck("none", 0), word, terms)
        assert anyio.current_time() - started >= 0.4
    assert isinstance(result, Refused)


async def test_one_good_answer_between_bad_ones_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [good("200"), waiting("500"), good("200"), waiting("500"), good("200"), good("200")]

    async def ask(check: HealthCheck, path: str) -> HttpAnswer:
        return HttpAnswer(200, answers.pop(0))

    monkeypatch.setattr(gate, "ask", ask)
    monkeypatch.setattr(gate, "_from_ours", lambda verdict, child, check: verdict)
    async with running("import time; time.sleep(60)", 0) as child:
        assert await pass_gate(child, HealthCheck("http", 1), Word(), TERMS) == Passed("/api/health", 6)


class Probed:
    """Answers liveness probes by the list, then with the last of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: HttpAnswer) -> None:
        self.left = list(answers)
        self.asked = 0
        self.told: list[tuple[bool, str]] = []
        monkeypatch.setattr(gate, "ask", self.ask)

    async def ask(self, check: HealthCheck, path: str) -> HttpAnswer:
        self.asked += 1
        return self.left.pop(0) if len(self.left) > 1 else self.left[0]

    async def watch(self, excuse: str = "", check: HealthCheck | None = None) -> str:
        return await watch_liveness(
            check or HealthCheck("http", 1),
            "/",
            pace=lambda: Pace(0.001, 3),
            on_answer=lambda good, why: self.told.append((good, why)),
            excuse=lambda: excuse,
        )


BAD, GOOD = HttpAnswer(500, waiting("500")), HttpAnswer(200, good("200"))


async def test_only_failures_in_a_row_count(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Probed(monkeypatch, BAD, BAD, GOOD, BAD)
    assert await probed.watch() == "3 liveness probes in a row failed; last answer: 500"
    assert probed.asked == 6
    assert [good for good, _ in probed.told] == [False, False, True, False, False, False]


async def test_answer_with_an_excuse_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Probed(monkeypatch, BAD)
    async with anyio.create_task_group() as group:
        group.start_soon(probed.watch, "postgres is down")
        await until(lambda: probed.asked > 10)
        group.cancel_scope.cancel()
    assert probed.told[0] == (False, "500 (while postgres is down)")


async def test_no_answer_has_no_excuse(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = Probed(monkeypatch, HttpAnswer(None, waiting("connection refused")))
    assert "connection refused" in await probed.watch("postgres is down")


async def test_probe_that_hangs_fails_within_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask(check: HealthCheck, path: str) -> HttpAnswer:
        await anyio.sleep_forever()
        raise AssertionError

    probed = Probed(monkeypatch, GOOD)
    monkeypatch.setattr(gate, "ask", ask)
    with anyio.fail_after(5):
        why = await probed.watch(check=replace(HealthCheck("http", 1), limit_seconds=0.01))
    assert why.endswith("no answer within 0.01 s")
