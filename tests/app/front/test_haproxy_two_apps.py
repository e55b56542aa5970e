"""Two apps, each with a port of its own, on one HAProxy: nothing of one is the other's."""

from __future__ import annotations

from functools import partial

import anyio
import pytest

from supervisor.app.front.model import Holding
from tests.app.front.haproxy_rig import Rig, open_rigs, until
from tests.app.front.http_app import ask
from tests.app.front.test_haproxy_switch import Load, end_haproxy

pytestmark = pytest.mark.anyio


async def turn(rig: Rig, load: Load, name: str) -> None:
    """From one generation to the next and back, under load."""
    async with rig.generation(f"{name} 1") as (first, _), rig.generation(f"{name} 2") as (second, _):
        await rig.front.switch(first)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(load.keep_alive)
                group.start_soon(load.new_connections)
            for place in (second, first, second, first, second):
                await load.until_count(100)
                await rig.front.switch(place)
            await load.until_count(100)
            load.stop()
        assert (await rig.traffic(second)).unreached == 0


async def test_two_apps_are_switched_at_the_same_time_under_load_and_nothing_fails() -> None:
    async with open_rigs("api", "web") as rigs:
        loads = [Load(rig.port) for rig in rigs]
        async with anyio.create_task_group() as group:
            for rig, load, name in zip(rigs, loads, ("api", "web"), strict=True):
                group.start_soon(turn, rig, load, name)
        assert [load.failed for load in loads] == [[], []]
        assert [sorted(load.answered) for load in loads] == [["api 1", "api 2"], ["web 1", "web 2"]]


async def test_an_app_that_crashes_or_is_held_leaves_the_other_one_alone() -> None:
    async with open_rigs("api", "web") as (api, web), web.generation("web") as (there, _):
        await web.front.switch(there)
        async with api.generation("api") as (place, app):
            await api.front.switch(place)
            assert (await ask(api.port)).app == "api"
            app.crash()
        await api.front.wait()
        async with anyio.create_task_group() as group:
            group.start_soon(partial(ask, api.port))
            await until(api.front.waiting, lambda count: count == 1)
            assert await web.front.waiting() == 0
            assert (await ask(web.port)).app == "web"
            await api.front.answer(Holding("failed", "no database"))
        assert (await ask(api.port)).status == 503
        assert (await ask(web.port)).app == "web"


async def test_both_survive_the_end_of_their_haproxy() -> None:
    async with (
        open_rigs("api", "web") as (api, web),
        api.generation("api") as (one, _),
        web.generation("web") as (two, _),
    ):
        await api.front.switch(one)
        await web.front.switch(two)
        await end_haproxy(api)
        assert [(await ask(rig.port)).app for rig in (api, web)] == ["api", "web"]
