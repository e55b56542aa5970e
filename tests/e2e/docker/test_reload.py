"""The reload in containers, in both modes: no request fails on either published port, and only the app changes."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.e2e.docker.conftest import Keeper
from tests.e2e.docker.documented import booted_again, standing
from tests.e2e.docker.echo import STREAM_SECONDS, EchoStack, Loads
from tests.e2e.docker.stack import APP_PORT, SERVICES, Kind, fetch
from tests.e2e.harness import wait_until
from tests.e2e.reload.clients import EventStream, SlowRequest, Stream, WebSocket
from tests.e2e.reload.rig import LOST, failures, longest_ms

pytestmark = pytest.mark.engine
WAYS = (
    # Not `docker kill --signal`: after that the engine does not start a container again.
    ("sh", "-c", "kill -HUP 1"),
    ("touch", "/app/.reload-trigger"),
    ("supervisor", "reload"),
)
_DOCKER_STOP_SECONDS = 10  # the engine's default, then it kills
_ASK_HEADERS = r"""exec 3<>"/dev/tcp/$0/80"
printf 'GET /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
hostname -I
tail -n 1 <&3"""
_PHASES = ("dockerd", "the container engine", "the app", "the route to the app")


class Reloads:
    """Tests over one stack that they share: each finds it whole, and leaves it running."""

    kind: Kind

    @pytest.fixture
    def stack(self, echo_keeper: Keeper[EchoStack]) -> EchoStack:
        return echo_keeper.whole(self.kind)

    def test_three_reloads_under_load_fail_no_request_and_replace_only_the_app(self, stack: EchoStack) -> None:
        before, init = standing(stack), stack.init_on_host()
        apps = {stack.app}
        with Loads(stack) as loads:
            for way in WAYS:
                version = stack.release()
                reload(stack, way)
                loads.wait_version(version)
                apps.add(stack.app)
            reports = loads.stop()
        assert failures(reports) == {}
        assert len(apps) == 1 + len(WAYS)
        assert (standing(stack), stack.init_on_host()) == (before, init)

    def test_a_killed_app_under_load_loses_only_what_it_had_in_hand(self, stack: EchoStack) -> None:
        with Loads(stack) as loads:
            version = stack.release()
            stack.kill_9(stack.app)
            loads.wait_version(version)
            reports = loads.stop()
        lost = failures(reports)
        assert set(lost) <= LOST
        assert sum(lost.values()) <= loads.most_in_hand
        assert longest_ms(reports) < 5000

    def test_streams_stay_over_a_reload_until_their_bound_and_no_request_fails(self, stack: EchoStack) -> None:
        with Loads(stack) as loads, ExitStack() as closed:
            old = stack.version
            streams: list[Stream] = [make(url) for url in stack.urls for make in (EventStream, WebSocket)]
            for stream in streams:
                closed.enter_context(closing(stream))
            version = stack.release()
            asked = time.monotonic()
            reload(stack, WAYS[-1])
            loads.wait_version(version)
            assert [stream.version() for stream in streams] == [old] * len(streams)
            reloaded = time.monotonic()
            with ThreadPoolExecutor() as threads:
                ends = list(threads.map(lambda stream: stream.ended_at(), streams))
            reports = loads.stop()
        assert failures(reports) == {}
        assert min(ends) - asked > STREAM_SECONDS
        assert max(ends) - reloaded < STREAM_SECONDS + 3

    @pytest.mark.parametrize("state", ["starting", "warm"])
    def test_docker_stop_in_the_middle_of_a_reload_answers_what_is_in_hand_and_ends_in_time(
        self, stack: EchoStack, state: str
    ) -> None:
        app, again = stack.app, booted_again(stack)
        stack.release(boot_seconds=4 if state == "starting" else 0.2)
        seen = len(stack.events("app.generation", state=state))
        stack.inside(*WAYS[0])
        stack.wait_event("app.generation", state=state, after=seen)
        with SlowRequest(stack.app_url, 1.5) as slow:
            began = time.monotonic()
            stack.share.engine.run("stop", stack.container)
            assert time.monotonic() - began < _DOCKER_STOP_SECONDS
            assert slow.answer()[0] == 200
        assert stack.state["ExitCode"] == 0, stack.story()
        assert (stack.app == app) == (state == "starting"), "it was not in the middle of a reload"
        stack.share.engine.run("start", stack.container)
        wait_until("it is up again", again, limit=60)

    def test_clients_get_the_boot_page_while_the_stack_boots(self, stack: EchoStack) -> None:
        again = booted_again(stack)
        stack.share.engine.run("restart", stack.container)
        page = wait_until("the boot page says what is awaited", lambda: boot_page(stack), limit=30)
        assert page["state"] == "starting"
        assert set(page["waiting"]) <= {*SERVICES, *_PHASES}
        wait_until("it is up again", again, limit=60)
        assert fetch(f"{stack.app_url}/echo")[0] == 200

    def test_the_app_is_told_the_client_s_address_directly_and_behind_traefik(self, stack: EchoStack) -> None:
        behind = asked_beside_traefik if stack.kind is Kind.SOCKET else lambda stack: asked(stack.traefik_url)
        for headers, client in (asked(f"http://{stack.address}:{APP_PORT}"), behind(stack)):
            assert headers["x-forwarded-for"] in client

    def test_haproxy_runs_as_a_user_of_its_own_and_the_log_says_that_it_is_the_front(self, stack: EchoStack) -> None:
        (pid,) = stack.pids("haproxy")
        assert stack.inside("stat", "--format", "%U", f"/proc/{pid}") == "haproxy"
        assert stack.inside("grep", "PPid", f"/proc/{pid}/status").split() == ["PPid:", "1"]
        chosen = stack.events("app.front")[-1]
        assert (chosen["kind"], chosen["app"]) == ("proxy", "app")


class TestDindReloads(Reloads):
    kind = Kind.DIND


class TestSocketReloads(Reloads):
    kind = Kind.SOCKET


def reload(stack: EchoStack, way: tuple[str, ...]) -> None:
    """Ask for one in this way, and wait for its end, which must be a good one."""
    before = len(stack.events("reload.finished"))
    stack.inside(*way)
    finished = stack.wait_event("reload.finished", after=before)
    assert finished["result"] == "ok", finished


def boot_page(stack: EchoStack) -> dict[str, Any] | None:
    """None while nothing is awaited yet, or nobody answers, which is in the container's first moments."""
    with closing(connect(stack.app_url)) as connection, suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert (answer.status, answer.headers["Retry-After"]) == (503, "2"), text
        page: dict[str, Any] = json.loads(text)
        return page if page["waiting"] else None
    return None


def asked(url: str) -> tuple[dict[str, str], list[str]]:
    """From here: the headers that reach the app, and our address."""
    with closing(connect(url)) as connection:
        connection.request("GET", "/headers")
        client = connection.sock.getsockname()[0]
        return json.loads(connection.getresponse().read()), [client]


def asked_beside_traefik(stack: EchoStack) -> tuple[dict[str, str], list[str]]:
    """From a container on Traefik's network, and its addresses; the engine itself relays who comes from its host."""
    words = ("run", "--rm", "--network", stack.thing("network"), "--label", stack.share.label)
    said = stack.docker(*words, stack.share.engine.image("base"), "bash", "-c", _ASK_HEADERS, stack.thing("traefik"))
    addresses, headers = said.splitlines()
    return json.loads(headers), addresses.split()


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
