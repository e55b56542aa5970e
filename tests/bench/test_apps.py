"""The apps of the benchmark do the same in each language."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.bench.reload.contenders import IMPORTS, NODE, PYTHON_APP, build_static
from tests.bench.reload.running import Running, lay_out, peer_environment
from tests.bench.rig import free_port, missing, wait_until


@pytest.fixture(params=["node", "python", "static"])
def argv(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    if request.param == "python":
        return list(PYTHON_APP)
    if missing("node" if request.param == "node" else "gcc"):
        pytest.skip("not installed here")
    if request.param == "node":
        return list(NODE)
    made = build_static(tmp_path)
    assert made is not None
    return [str(made)]


@contextmanager
def run(argv: list[str], home: Path, release: str) -> Iterator[tuple[Running, subprocess.Popen[bytes]]]:
    lay_out(home)
    (home / "release").write_text(release)
    port = free_port()
    env = peer_environment(home, port, {**IMPORTS, "APP_BOOT_SECONDS": "0.05", "APP_WORK_MS": "1"})
    with subprocess.Popen(argv, env=env, stderr=subprocess.DEVNULL) as popen:
        try:
            yield Running(home, port, lambda: None), popen
        finally:
            popen.kill()


def ask(app: Running, path: str = "/", body: bytes | None = None) -> tuple[int, str | None, bytes]:
    """(status, version, body), from the moment somebody listens."""

    def accepts() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", app.port)) == 0

    wait_until(accepts, what="the app's port")
    try:
        with urllib.request.urlopen(urllib.request.Request(app.url(path), data=body), timeout=10) as answer:
            return answer.status, answer.headers["App-Version"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["App-Version"], error.read()


def test_app_names_its_version_echoes_a_body_and_works_as_long_as_asked(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "7\n") as (app, _):
        assert ask(app, "/api/health") == (200, "7", b"ok\n")
        assert ask(app, body=b"x" * 5000) == (200, "7", b"x" * 5000)
        began = time.monotonic()
        assert ask(app, "/sleep/300")[0] == 200
        assert time.monotonic() - began >= 0.3
        started, up = app.first("started", 7), app.first("up", 7)

    assert started is not None
    assert up is not None
    assert up.at - started.at >= 0.05


def test_app_ends_at_once_on_term_whatever_is_in_flight(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "1\n") as (app, popen):
        ask(app)
        with socket.create_connection(("127.0.0.1", app.port)) as client:
            client.sendall(b"GET /sleep/60000 HTTP/1.1\r\nHost: x\r\n\r\n")
            popen.terminate()
            assert popen.wait(5) == 0


def test_release_that_is_500s_answers_so_also_for_its_health(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "2 500s\n") as (app, _):
        assert ask(app, "/api/health")[:2] == (500, "2")


def test_release_that_exits_never_comes_up(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "2 exit\n") as (app, popen):
        assert popen.wait(10) == 1
        assert [one.what for one in app.moments()] == ["started"]


def test_release_that_turns_is_good_at_first(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "2 turns\n") as (app, _):
        assert ask(app)[0] == 200
        wait_until(lambda: ask(app)[0] == 500, what="the turn", limit_seconds=6, poll=0.05)


def test_release_that_is_deaf_runs_and_never_listens(argv: list[str], tmp_path: Path) -> None:
    with run(argv, tmp_path, "2 deaf\n") as (app, popen):
        wait_until(lambda: app.first("started", 2), what="its start")
        with pytest.raises(TimeoutError):
            wait_until(lambda: app.first("up", 2), what="up", limit_seconds=0.5)
        assert popen.poll() is None
        os.kill(popen.pid, 15)
        popen.wait(5)
