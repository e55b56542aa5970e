"""Whom HAProxy gives requests to: switches under load, holding while nobody serves, shares, counts."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import suppress
from functools import partial

import anyio
import pytest
from anyio.abc import SocketAttribute

from supervisor.app.front.haproxy import front as module
from supervisor.app.front.haproxy.config import FrontLimits
from supervisor.app.front.model import FrontError, Holding, Wire
from tests.app.front.haproxy_rig import Rig, open_rig, until
from tests.app.front.http_app import UPGRADE, Answer, Client, ask

pytestmark = pytest.mark.anyio


class Load:
    """Clients that ask again and again until told to stop; every other request is a POST."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = False
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []

    async def keep_alive(self) -> None:
        async with Client(self._port) as client:
            while not self._stopped and await self._one(client):
                pass

    async def new_connections(self) -> None:
        while not self._stopped:
            try:
                async with Client(self._port) as client:
                    await self._one(client)
            except OSError as error:
                self.failed.append(repr(error))

    async def _one(self, client: Client) -> bool:
        """One request; False where the connection is lost."""
        body = b"x" * 2000 if self.count % 2 else b""
        try:
            answer = await client.ask("POST" if body else "GET", body=body)
        except (anyio.EndOfStream, anyio.BrokenResourceError) as error:
            self.failed.append(repr(error))
            return False
        if answer.status != 200 or answer.json()["size"] != len(body):
            self.failed.append(str(answer))
        else:
            self.answered[answer.app] = self.answered.get(answer.app, 0) + 1
        return True

    @property
    def count(self) -> int:
        return sum(self.answered.values()) + len(self.failed)

    async def until_count(self, more: int) -> None:
        """Wait for so many more answers."""
        goal = self.count + more

        async def counted() -> int:
            return self.count

        await until(counted, lambda count: count >= goal)

    def stop(self) -> None:
        self._stopped = True


async def test_switches_under_load_fail_nothing_and_what_is_in_flight_ends_where_it_began() -> None:
    async with open_rig() as rig, anyio.create_task_group() as group:
        load = Load(rig.port)
        async with (
            rig.generation("one") as (first, one),
            rig.generation("two") as (second, two),
            Client(rig.port) as slow,
        ):
            await rig.front.switch(first)
            await slow.begin("POST", "/slow", b"abc")
            await until(lambda: rig.traffic(first), lambda found: found.in_flight == 1)
            for _ in range(4):
                group.start_soon(load.keep_alive)
                group.start_soon(load.new_connections)
            for place in (second, first, second, first, second):
                await load.until_count(300)
                await rig.front.switch(place)
                seen = len(one.requests if place is second else two.requests)
                await load.until_count(100)
                # What was being handed over just then may still arrive, one a client.
                assert len(one.requests if place is second else two.requests) <= seen + 8
            load.stop()
            one.release.set()
            assert (await slow.answer()).app == "one"
            assert load.failed == []
            assert load.answered["one"] > 300
            assert load.answered["two"] > 300


async def test_a_body_arrives_as_it_was_sent() -> None:
    body = bytes(range(256)) * 4000
    async with open_rig() as rig, rig.generation() as (place, _):
        await rig.front.switch(place)
        answer = (await ask(rig.port, "POST", body=body)).json()
        assert (answer["size"], answer["sum"]) == (len(body), sum(body))


async def test_a_connection_to_the_app_carries_one_request() -> None:
    """So that an app that closes an idle one can never close it just as a request is sent."""
    async with open_rig() as rig, rig.generation() as (place, app), Client(rig.port) as client:
        await rig.front.switch(place)
        for _ in range(2):
            assert (await client.ask()).headers.get("connection") is None
        assert [request.headers["connection"] for request in app.requests] == ["close", "close"]


async def held(rig: Rig, method: str, answers: list[Answer]) -> None:
    answers.append(await ask(rig.port, method, body=b"abc" if method == "POST" else b""))


@pytest.mark.parametrize("told", [True, False], ids=["told-to-wait", "not-told"])
async def test_requests_wait_over_a_crash_for_the_replacement(told: bool) -> None:
    answers: list[Answer] = []
    async with open_rig() as rig:
        async with rig.generation("old") as (old, app):
            await rig.front.switch(old)
            app.crash()
        async with anyio.create_task_group() as group:
            if told:
                await rig.front.wait()
            for method in ("GET", "POST") * 3:
                group.start_soon(held, rig, method, answers)
            await until(rig.front.waiting, lambda count: count == 6)
            async with rig.generation("new") as (new, app):
                await rig.front.switch(new)
                await rig.front.give_back(old)
                await until(rig.front.waiting, lambda count: count == 0)
                while len(answers) < 6:
                    await anyio.wait_all_tasks_blocked()
                assert [answer.app for answer in answers] == ["new"] * 6
                assert len(app.requests) == 6
                found = await rig.traffic(new)
                assert (found.answered, found.unreached) == (6, 0)


async def test_an_app_that_must_not_overlap_is_drained_while_new_requests_wait() -> None:
    answers: list[Answer] = []
    async with open_rig() as rig, anyio.create_task_group() as group:
        async with rig.generation("old") as (old, app), Client(rig.port) as slow:
            await rig.front.switch(old)
            await slow.begin("GET", "/slow")
            await until(lambda: rig.traffic(old), lambda found: found.in_flight == 1)
            await rig.front.wait()
            group.start_soon(held, rig, "POST", answers)
            await until(rig.front.waiting, lambda count: count == 1)
            app.release.set()
            assert (await slow.answer()).app == "old"
            assert (await until(lambda: rig.traffic(old), lambda found: found.in_flight == 0)).answered == 1
        await rig.front.give_back(old)
        async with rig.generation("new") as (new, _):
            await rig.front.switch(new)
            await until(rig.front.waiting, lambda count: count == 0)
            await until(partial(_first, answers), bool)
            assert answers[0].app == "new"


async def _first(answers: list[Answer]) -> list[Answer]:
    return answers


async def test_requests_that_wait_get_the_holding_answer_once_it_is_told() -> None:
    answers: list[Answer] = []
    async with open_rig() as rig:
        async with anyio.create_task_group() as group:
            await rig.front.wait()
            group.start_soon(held, rig, "GET", answers)
            group.start_soon(held, rig, "POST", answers)
            await until(rig.front.waiting, lambda count: count == 2)
            await rig.front.answer(Holding("failed", "it gave up"))
        assert [(answer.status, answer.body) for answer in answers] == [(503, b"it gave up")] * 2
        assert answers[0].headers["retry-after"] == "2"
        assert await rig.front.waiting() == 0


async def test_a_wait_is_bounded_in_time_and_number() -> None:
    answers: list[Answer] = []
    async with open_rig(limits=FrontLimits(hold_seconds=0.5, hold_requests=2)) as rig:
        await rig.front.wait()
        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(held, rig, "GET", answers)
            await until(rig.front.waiting, lambda count: count == 2)
            crowded = await ask(rig.port)
            assert (crowded.status, crowded.headers["retry-after"]) == (503, "1")
            assert answers == []
        assert [answer.status for answer in answers] == [503, 503]
        assert anyio.current_time() - began >= 0.5


async def test_a_request_that_may_have_been_done_is_never_sent_twice() -> None:
    async with open_rig() as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        for method in ("POST", "GET"):
            assert (await ask(rig.port, method, "/vanish")).status == 502
        assert len(app.requests) == 2
        found = await until(lambda: rig.traffic(place), lambda found: found.unreached == 2)
        assert found.answered == 0


async def test_each_request_without_a_whole_answer_is_counted_as_lost_once() -> None:
    async with open_rig() as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        for path in ("/vanish", "/reset", "/half", "/", "/fail"):
            with suppress(anyio.EndOfStream):
                await ask(rig.port, path=path)
        lost = await until(lambda: rig.traffic(place), lambda found: found.lost >= 3)
        assert (lost.lost, lost.unreached, lost.answered) == (3, 3, 3)
        async with Client(rig.port) as client, Client(rig.port) as other:
            for each in (client, other):
                await each.begin(path="/slow")
            await until(lambda: rig.traffic(place), lambda found: found.in_flight == 2)
            raw = client.stream.extra(SocketAttribute.raw_socket)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await anyio.aclose_forcefully(client.stream)
            app.release.set()
            assert (await other.answer()).status == 200
        found = await until(lambda: rig.traffic(place), lambda found: found.in_flight == 0)
        assert found.lost == 3, "who went away lost nothing"


async def test_only_safe_requests_are_repeated_where_that_is_wanted() -> None:
    async with open_rig(repeat=True, limits=FrontLimits(hold_seconds=0)) as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        assert (await ask(rig.port, "POST", "/vanish")).status == 502
        assert len(app.requests) == 1
        assert (await ask(rig.port, "GET", "/vanish")).status == 502
        assert len(app.requests) > 2


async def test_counts_of_a_place_begin_at_its_first_switch_and_survive_a_new_haproxy() -> None:
    async with open_rig() as rig, rig.generation("one") as (first, _):
        assert (await rig.traffic(first)).answered == 0
        await rig.front.switch(first)
        for path in ("/", "/fail", "/"):
            await ask(rig.port, path=path)
        counted = await until(lambda: rig.traffic(first), lambda found: found.answered == 3)
        assert (counted.failed, counted.unreached) == (1, 0)
        await end_haproxy(rig)
        await ask(rig.port, path="/fail")
        again = await until(lambda: rig.traffic(first), lambda found: found.answered == 4)
        assert again.since(counted).failed == 1
        await rig.front.give_back(first)
        assert (await rig.traffic(first)).answered == 4, "what it came to is still asked for"
        await rig.front.answer(Holding("starting", ""))
        # All lines in turn, so that one is used again.
        for _ in range(3):
            async with rig.generation("next") as (place, _):
                await rig.front.switch(place)
                assert (await rig.traffic(place)).answered == 0
                await ask(rig.port)
                await until(partial(rig.traffic, place), lambda found: found.answered == 1)
            await rig.front.give_back(place)
        assert (await rig.traffic(first)).answered == 0, "its line is another's now"


async def end_haproxy(rig: Rig) -> None:
    before = rig.haproxy.starts
    assert rig.haproxy.pid is not None
    os.kill(rig.haproxy.pid, signal.SIGKILL)

    async def starts() -> int:
        return rig.haproxy.starts

    await until(starts, lambda count: count > before)


async def test_streams_are_counted_apart_and_outlive_a_switch() -> None:
    async with open_rig() as rig, rig.generation("one") as (first, one), rig.generation("two") as (second, _):
        await rig.front.switch(first)
        async with Client(rig.port) as socket, Client(rig.port) as events, Client(rig.port) as slow:
            await socket.begin(path="/chat", **UPGRADE)
            assert (await socket.answer(without_body=True)).status == 101
            await events.begin(Accept="text/event-stream")
            assert (await events.answer(without_body=True)).status == 200
            await slow.begin(path="/slow")
            found = await until(lambda: rig.traffic(first), lambda found: found.in_flight == 1)
            assert found.streams == 2
            await rig.front.switch(second)
            await socket.send(b"still there?")
            assert await socket.reader.some() == b"still there?"
            assert (await rig.traffic(first)).streams == 2
            assert (await ask(rig.port)).app == "two"
            one.release.set()
            await until(lambda: rig.traffic(first), lambda found: (found.in_flight, found.streams) == (0, 1))
        await until(lambda: rig.traffic(first), lambda found: found.streams == 0)


async def test_a_share_gives_the_candidate_its_part_and_ends() -> None:
    async with open_rig() as rig, rig.generation("old") as (old, _), rig.generation("new") as (new, candidate):
        with pytest.raises(FrontError, match="nobody else serves"):
            await rig.front.share(new, 10)
        await rig.front.switch(old)
        await rig.front.share(new, 20)
        for _ in range(50):
            await ask(rig.port)
        assert len(candidate.requests) == 10
        await rig.front.share(new, 0)
        for _ in range(10):
            await ask(rig.port)
        assert len(candidate.requests) == 10
        assert (await rig.traffic(new)).answered == 10


async def test_a_candidate_that_dies_in_its_share_fails_nobody() -> None:
    async with open_rig() as rig, rig.generation("old") as (old, _), rig.generation("new") as (new, candidate):
        await rig.front.switch(old)
        await rig.front.share(new, 50)
        candidate.crash()
        assert {(await ask(rig.port)).app for _ in range(20)} == {"old"}
        assert (await rig.traffic(new)).unreached >= 5


async def test_there_is_room_for_three_and_no_fourth() -> None:
    async with open_rig() as rig:
        places = [await rig.front.take_place() for _ in range(3)]
        assert len({place.port for place in places}) == 3
        assert rig.front.room == 0
        with pytest.raises(FrontError, match="all 3 are taken"):
            await rig.front.take_place()
        await rig.front.give_back(places[1])
        await rig.front.give_back(places[1])
        assert rig.front.room == 1
        with pytest.raises(FrontError, match="was given back"):
            await rig.front.switch(places[1])
        assert (await rig.front.take_place()).line == places[1].line


async def test_a_switch_that_is_not_confirmed_leaves_the_old_one_serving(monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_rig() as rig, rig.generation("old") as (old, _), rig.generation("new") as (new, _):
        await rig.front.switch(old)
        with monkeypatch.context() as patch:
            patch.setattr(module, "_CONFIRM_SECONDS", 0.0)
            patch.setattr(module, "difference", lambda *_: "g2 is elsewhere")
            with pytest.raises(FrontError, match="g2 is elsewhere"):
                await rig.front.switch(new)
        assert {(await ask(rig.port)).app for _ in range(4)} == {"old"}
        await end_haproxy(rig)
        assert (await ask(rig.port)).app == "old"


async def test_a_switch_confirmed_by_a_haproxy_that_is_gone_is_made_on_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was started again with the old lines, after the last one had confirmed the new ones."""
    async with open_rig() as rig, rig.generation("old") as (old, _), rig.generation("new") as (new, _):
        await rig.front.switch(old)
        ask_it = rig.haproxy.runtime.ask

        async def ask_and_lose_it(*commands: str) -> str:
            reply = await ask_it(*commands)
            if any(command.startswith("set ") for command in commands) and rig.haproxy.starts == 1:
                await end_haproxy(rig)
            return reply

        monkeypatch.setattr(rig.haproxy.runtime, "ask", ask_and_lose_it)
        await rig.front.switch(new)
        assert {(await ask(rig.port)).app for _ in range(4)} == {"new"}


async def test_plain_tcp_switches_by_connection_and_waits() -> None:
    async with open_rig(Wire.TCP) as rig:
        async with rig.generation("old") as (old, app), rig.generation("new") as (new, _):
            await rig.front.switch(old)
            async with Client(rig.port) as client:
                assert (await client.ask()).app == "old"
                assert (await rig.traffic(old)).in_flight == 1
                await rig.front.switch(new)
                assert (await client.ask()).app == "old"
                assert (await ask(rig.port)).app == "new"
            assert "x-forwarded-for" not in app.requests[0].headers
            found = await until(lambda: rig.traffic(old), lambda found: found.in_flight == 0)
            assert (found.answered, found.unreached, found.failed) == (1, 0, 0)
        await rig.front.wait()
        answers: list[Answer] = []
        async with anyio.create_task_group() as group:
            group.start_soon(held, rig, "GET", answers)
            await until(rig.front.waiting, lambda count: count == 1)
            async with rig.generation("third") as (third, _):
                await rig.front.switch(third)
                await until(partial(_first, answers), bool)
        assert answers[0].app == "third"
        await rig.front.answer(Holding("failed", "no reason"))
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await ask(rig.port)
