"""What every front promises, whatever it is made of: a test class derives from `FrontContract` and opens one.

`overlap` and `kind` tell which promises apply: without overlap one generation ends before the next one begins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import anyio
import pytest

from supervisor.app.front.model import Front, FrontError, FrontKind, Holding
from tests.app.front.http_app import Answer, app_at, ask

_LIMIT_SECONDS = 20.0


@dataclass(frozen=True)
class OpenFront:
    """A front that serves nobody yet, and the loopback port its clients use."""

    front: Front
    port: int


class FrontContract(ABC):
    """The promises as tests; each opens a front of its own, and apps that really listen where they are told."""

    @abstractmethod
    def open(self) -> AbstractAsyncContextManager[OpenFront]:
        """A front, closed at the end of the block."""

    async def test_a_place_is_free_and_its_generation_gets_the_requests_once_switched_to(self) -> None:
        async with self.open() as opened:
            room = opened.front.room
            place = await opened.front.take_place()
            assert opened.front.room == room - 1
            async with app_at(place.port, "one", host=place.host):
                await opened.front.switch(place)
                assert (await ask(opened.port)).app == "one"
            await opened.front.give_back(place)
            assert opened.front.room == room

    async def test_a_place_can_be_given_back_twice_and_a_stale_one_takes_nothing(self) -> None:
        async with self.open() as opened:
            room = opened.front.room
            first = await opened.front.take_place()
            await opened.front.give_back(first)
            await opened.front.give_back(first)
            assert opened.front.room == room
            with pytest.raises(FrontError):
                await opened.front.switch(first)

    async def test_no_more_places_are_given_than_there_is_room_for(self) -> None:
        async with self.open() as opened:
            for _ in range(opened.front.room):
                await opened.front.take_place()
            assert opened.front.room == 0
            with pytest.raises(FrontError):
                await opened.front.take_place()

    async def test_one_generation_after_another_serves_however_many_there_were(self) -> None:
        async with self.open() as opened:
            for number in range(5):
                place = await opened.front.take_place()
                async with app_at(place.port, f"number-{number}", host=place.host):
                    await opened.front.switch(place)
                    assert (await ask(opened.port)).app == f"number-{number}"
                await opened.front.wait()
                await opened.front.give_back(place)

    async def test_counts_if_there_are_any_are_of_the_place(self) -> None:
        async with self.open() as opened:
            place = await opened.front.take_place()
            async with app_at(place.port, "one", host=place.host):
                await opened.front.switch(place)
                if (before := await opened.front.traffic(place)) is None:
                    return
                for path in ("/", "/fail"):
                    await ask(opened.port, path=path)
                with anyio.fail_after(_LIMIT_SECONDS):
                    while (now := await opened.front.traffic(place)) is None or now.since(before).answered < 2:
                        await anyio.sleep(0.005)
                assert now.since(before).failed == 1

    async def test_a_share_is_given_to_a_candidate_or_refused_as_such(self) -> None:
        async with self.open() as opened:
            if opened.front.kind is FrontKind.RESTART:
                place = await opened.front.take_place()
                with pytest.raises(FrontError):
                    await opened.front.share(place, 10)
                return
            old, new = await opened.front.take_place(), await opened.front.take_place()
            async with app_at(old.port, "old", host=old.host), app_at(new.port, "new", host=new.host) as candidate:
                await opened.front.switch(old)
                await opened.front.share(new, 25)
                for _ in range(20):
                    await ask(opened.port)
                assert len(candidate.requests) == 5
                await opened.front.share(new, 0)
                assert {(await ask(opened.port)).app for _ in range(8)} == {"old"}

    async def test_a_front_that_holds_says_503_and_why_and_serves_again_after_it(self) -> None:
        async with self.open() as opened:
            place = await opened.front.take_place()
            await opened.front.answer(Holding("failed", "the reason it is held"))
            if opened.front.kind is FrontKind.PROXY:
                held = await ask(opened.port)
                assert held.status == 503
                assert "retry-after" in held.headers
                assert b"the reason it is held" in held.body
            async with app_at(place.port, "again", host=place.host):
                await opened.front.switch(place)
                assert (await ask(opened.port)).app == "again"

    async def test_requests_wait_where_the_front_can_make_them(self) -> None:
        answers: list[Answer] = []
        async with self.open() as opened:
            await opened.front.wait()
            if opened.front.kind is FrontKind.RESTART:
                assert await opened.front.waiting() == 0
                return

            async def client() -> None:
                answers.append(await ask(opened.port, "POST", body=b"abc"))

            async with anyio.create_task_group() as group:
                group.start_soon(client)
                with anyio.fail_after(_LIMIT_SECONDS):
                    while await opened.front.waiting() == 0:
                        await anyio.sleep(0.005)
                place = await opened.front.take_place()
                async with app_at(place.port, "late", host=place.host):
                    assert answers == []
                    await opened.front.switch(place)
                    with anyio.fail_after(_LIMIT_SECONDS):
                        while not answers:
                            await anyio.sleep(0.005)
            assert answers[0].app == "late"


class OverlapContract(FrontContract):
    """More, of fronts that let two generations run beside each other."""

    async def test_a_switch_is_complete_when_it_returns_and_can_be_taken_back(self) -> None:
        async with self.open() as opened:
            assert opened.front.overlap
            old, new = await opened.front.take_place(), await opened.front.take_place()
            async with app_at(old.port, "old", host=old.host), app_at(new.port, "new", host=new.host):
                for place, name in ((old, "old"), (new, "new"), (old, "old")):
                    await opened.front.switch(place)
                    assert {(await ask(opened.port)).app for _ in range(4)} == {name}
