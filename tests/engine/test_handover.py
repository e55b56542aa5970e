"""Bytes from a thread to the loop: nothing lost or out of order, bounded, and nobody left waiting."""

from __future__ import annotations

import threading

import anyio
import anyio.to_thread
import pytest

from supervisor.engine.handover import Handover

pytestmark = pytest.mark.anyio


async def test_all_that_is_put_is_taken_in_order_in_few_pieces() -> None:
    handover = Handover()
    words = [b"%d\n" % number for number in range(20_000)]
    taken: list[bytes] = []

    def put() -> None:
        assert all(handover.put(word) for word in words)

    async def read() -> None:
        await anyio.to_thread.run_sync(put)
        handover.end()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        with anyio.fail_after(30):
            while data := await handover.take():
                taken.append(data)
    assert b"".join(taken) == b"".join(words)
    assert await handover.take() == b"", "the end stays the end"


async def test_what_comes_meanwhile_is_one_piece() -> None:
    handover = Handover()

    def put() -> None:
        for word in (b"one ", b"two ", b"three"):
            handover.put(word)

    await anyio.to_thread.run_sync(put)
    assert await handover.take() == b"one two three"


async def test_a_slow_taker_holds_the_thread_back() -> None:
    handover = Handover(max_bytes=10)
    put: list[int] = []

    def fill() -> None:
        for number in range(100):
            put.append(number)
            handover.put(b"12345")

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, fill)
        with anyio.fail_after(30):
            while len(put) < 3:
                await anyio.sleep(0.001)
            await anyio.sleep(0.05)  # time in which it could put more
            assert len(put) == 3, "two fit, the third waits"
            size = 0
            while size < 500:
                size += len(await handover.take())
    assert size == 500


@pytest.mark.parametrize("waits", [True, False])
async def test_a_taker_that_leaves_frees_the_thread(waits: bool) -> None:
    handover = Handover(max_bytes=1)
    began, results = threading.Event(), list[bool]()

    def put() -> None:
        if waits:
            handover.put(b"full")
        began.set()
        results.append(handover.put(b"more"))

    async with anyio.create_task_group() as group:
        if not waits:
            handover.close()
        group.start_soon(anyio.to_thread.run_sync, put)
        await anyio.to_thread.run_sync(began.wait)
        await anyio.sleep(0.02)
        handover.close()
    assert results == [False]


async def test_a_taker_that_waits_is_woken_by_a_piece_and_by_the_end() -> None:
    handover = Handover()
    taken: list[bytes] = []

    async def take() -> None:
        while data := await handover.take():
            taken.append(data)

    with anyio.fail_after(30):
        async with anyio.create_task_group() as group:
            group.start_soon(take)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(handover.put, b"late")
            while not taken:
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            handover.end()
    assert taken == [b"late"]
