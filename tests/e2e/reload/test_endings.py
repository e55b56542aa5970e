"""The end of the supervisor, in order or by force, in the middle of a reload."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.e2e.harness import is_running, left_behind, request, wait_until
from tests.e2e.reload.clients import SlowRequest
from tests.e2e.reload.rig import App

STATES = ("gate", "canary", "bake", "drain")


@contextmanager
def in_state(app: App, state: str) -> Iterator[None]:
    """A reload that has come so far; in `drain` a request keeps the old generation."""
    environ = {"SUPERVISOR_BAKE_SECONDS": "5" if state == "bake" else "0", "SUPERVISOR_STOP_SECONDS": "8"}
    app.boot(**environ)
    app.release(boot_seconds=3 if state == "gate" else 0.2)
    if state == "canary":
        assert app.reload("?canary=50&for=60&wait=0") != {}
        wait_until("the canary runs", lambda: "canary: generation 2 gets" in app.supervisor.log(), limit=20)
        yield
        return
    if state != "drain":
        app.supervisor.send(signal.SIGHUP)
        app.wait_state(2, "starting" if state == "gate" else "serving")
        yield
        return
    with SlowRequest(app.url, 4):
        app.supervisor.send(signal.SIGHUP)
        app.wait_state(1, "draining")
        yield


@pytest.mark.parametrize("state", STATES)
def test_term_in_a_reload_answers_what_the_serving_one_has_and_leaves_nothing(app: App, state: str) -> None:
    with in_state(app, state), SlowRequest(app.url, 1) as slow:
        started = time.monotonic()
        app.supervisor.send(signal.SIGTERM)
        assert slow.answer() == (200, b"patience")
        assert app.supervisor.wait(20) == 0
        assert time.monotonic() - started < 8
    assert left_behind(app.supervisor.state) == []


def test_term_answers_what_a_draining_generation_has(app: App) -> None:
    app.boot(SUPERVISOR_BAKE_SECONDS="0", SUPERVISOR_STOP_SECONDS="8")
    with SlowRequest(app.url, 2.5) as slow:
        app.release()
        assert app.reload()["result"] == "ok"
        app.supervisor.send(signal.SIGTERM)
        assert slow.answer() == (200, b"patience")
        assert app.supervisor.wait(20) == 0
    assert left_behind(app.supervisor.state) == []


def test_requests_in_a_stop_are_told_and_not_refused_while_others_are_answered(app: App) -> None:
    app.boot()
    with SlowRequest(app.url, 1.5) as slow:
        app.supervisor.send(signal.SIGTERM)
        app.supervisor.wait_event("supervisor.state", state="stopping")
        wait_until("new requests are told", lambda: request(app.supervisor.port, "/echo")[0] == 503, limit=5)
        assert slow.answer() == (200, b"patience")
    assert app.supervisor.wait(20) == 0


@pytest.mark.parametrize("state", ["idle", *STATES])
def test_killed_supervisor_is_followed_by_a_clean_start(app: App, state: str) -> None:
    with in_state(app, state) if state != "idle" else booted(app):
        left = left_behind(app.supervisor.state)
        assert len(left) >= 2, "HAProxy, and the app"
        app.supervisor.kill()
    app.release()
    app.boot(SUPERVISOR_BAKE_SECONDS="0")
    assert request(app.supervisor.port, "/echo") == (200, str(app.version))
    assert not any(is_running(pid) for pid in left)
    assert len(left_behind(app.supervisor.state)) == 2
    assert app.reload()["result"] == "ok"
    assert app.supervisor.stop() == 0
    assert left_behind(app.supervisor.state) == []


def test_term_within_the_switch_ends_in_time_though_haproxy_does_not_run(app: App) -> None:
    with in_switch(app):
        started = time.monotonic()
        app.supervisor.send(signal.SIGTERM)
        assert app.supervisor.wait(20) == 0
        assert time.monotonic() - started < 8.5
    assert left_behind(app.supervisor.state) == []


def test_supervisor_killed_within_the_switch_is_followed_by_a_clean_start(app: App) -> None:
    with in_switch(app):
        left = left_behind(app.supervisor.state)
        assert len(left) == 3, "HAProxy, and both generations"
        app.supervisor.kill()
    app.release()
    app.boot()
    assert request(app.supervisor.port, "/echo") == (200, str(app.version))
    assert not any(is_running(pid) for pid in left)
    assert app.supervisor.stop() == 0
    assert left_behind(app.supervisor.state) == []


@contextmanager
def in_switch(app: App) -> Iterator[None]:
    """HAProxy does not run, so that the switch does not end."""
    app.boot(SUPERVISOR_STOP_SECONDS="8")
    app.release(boot_seconds=0.3)
    app.supervisor.send(signal.SIGHUP)
    app.wait_state(2, "starting")
    with app.frozen_haproxy():
        app.wait_state(2, "ready")
        yield


@contextmanager
def booted(app: App) -> Iterator[None]:
    app.boot()
    yield


def test_second_term_in_the_drain_ends_all_at_once(app: App) -> None:
    app.boot(SUPERVISOR_STOP_SECONDS="30")
    with SlowRequest(app.url, 20):
        started = time.monotonic()
        app.supervisor.send(signal.SIGTERM)
        app.supervisor.wait_event("supervisor.state", state="stopping")
        os.kill(app.supervisor.pid, signal.SIGTERM)
        app.supervisor.wait(20)
        assert time.monotonic() - started < 5
    assert left_behind(app.supervisor.state) == []


def test_crash_tells_how_many_requests_were_lost_with_it(app: App) -> None:
    app.boot()
    with SlowRequest(app.url, 20) as one, SlowRequest(app.url, 20) as two:
        app.kill(1)
        assert app.supervisor.wait_event("app.restarting")["lost"] == 2
        assert [each.answer()[0] for each in (one, two)] == [502, 502]
    app.wait_state(2, "serving")
    app.kill(2)
    assert app.supervisor.wait_event("app.restarting", after=1)["lost"] == 0
