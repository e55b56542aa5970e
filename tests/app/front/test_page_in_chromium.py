"""The boot page as people meet it: in a real browser, without a hand on it from the first request to the app."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import anyio
import pytest

from supervisor.app.front import page as words
from supervisor.app.front.holder import Holder
from supervisor.app.front.model import Holding
from tests.chromium import Chromium, chromium, open_tab

pytestmark = pytest.mark.anyio
WAITING = Holding("starting", "", waiting=("postgres", "redis"))
NEARLY = Holding("starting", "redis does not answer yet", waiting=("redis",), done=("postgres",))
CRASHED = Holding(
    "failed", "exited with 1\n  " + "\n  ".join(f"line {n} of its output, {'long' * 30}" for n in range(40))
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as running:
        yield running


@pytest.fixture
def port() -> Iterator[socket.socket]:
    """A listening socket, held from the first page to the app, as a front holds it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "retry_after_seconds", lambda _: 1)


def address(port: socket.socket) -> str:
    return f"http://127.0.0.1:{port.getsockname()[1]}/"


async def serve_app(port: socket.socket) -> None:
    """An app of one page, until cancelled."""
    body = b"<!doctype html><title>Notes</title><h1>Welcome to your notes</h1>"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with await anyio.abc.SocketListener.from_socket(port.dup()) as listener:

        async def answer(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                with contextlib.suppress(anyio.BrokenResourceError, anyio.EndOfStream):
                    await stream.receive()
                    await stream.send(head + body)
                    await stream.send_eof()
                    await stream.receive()

        await listener.serve(answer)


async def test_a_browser_follows_the_boot_and_ends_on_the_app(browser: Chromium, port: socket.socket) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(WAITING)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        async with anyio.create_task_group() as holding:
            await holding.start(holder.run)
            await tab.call("Page.navigate", url=address(port))
            first = await tab.until("notes is starting")
            assert "postgres\nwaiting\nredis\nwaiting" in first
            holder.tell(NEARLY)
            assert "postgres\ndone\nredis\nwaiting\n\nredis does not answer yet" in await tab.until("done")
            holder.tell(CRASHED)
            assert "line 39 of its output" in await tab.until("notes is not running")
            holding.cancel_scope.cancel()
        group.start_soon(serve_app, port)
        assert (await tab.until("Welcome to your notes")).startswith("Notes\n")
        assert await tab.value("location.href") == address(port)
        group.cancel_scope.cancel()


@pytest.mark.parametrize("holding", [NEARLY, CRASHED], ids=["starting", "failed"])
async def test_the_page_fits_a_phone_in_light_and_dark(
    browser: Chromium, port: socket.socket, holding: Holding
) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(holding)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        await tab.call("Emulation.setDeviceMetricsOverride", width=320, height=640, deviceScaleFactor=2, mobile=True)
        grounds = []
        for scheme in ("light", "dark"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            await tab.call("Page.navigate", url=address(port))
            await tab.until("notes is")
            assert await tab.value("document.documentElement.scrollWidth") == 320
            grounds.append(await tab.value("getComputedStyle(document.body).backgroundColor"))
        group.cancel_scope.cancel()
    light, dark = (sum(map(int, ground.strip("rgb()").split(","))) for ground in grounds)
    assert light > 700 > 100 > dark


async def test_the_page_moves_only_where_motion_is_welcome(browser: Chromium, port: socket.socket) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    holder.tell(WAITING)
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        moving = []
        for motion in ("no-preference", "reduce"):
            await tab.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": motion}])
            await tab.call("Page.navigate", url=address(port))
            await tab.until("notes is")
            moving.append(await tab.value("document.getAnimations().length"))
        group.cancel_scope.cancel()
    assert moving == [3, 0]


async def test_the_policy_has_nothing_against_the_page_and_all_against_more(
    browser: Chromium, port: socket.socket
) -> None:
    holder = Holder("notes", listeners=[port.dup()])
    async with open_tab(browser) as tab, anyio.create_task_group() as group:
        await group.start(holder.run)
        await tab.call("Page.navigate", url=address(port))
        await tab.until("notes is")
        assert "Content Security Policy" not in await tab.complaints()
        await tab.value("document.head.append(Object.assign(document.createElement('style'), {textContent: 'a {}'}))")
        assert "Content Security Policy" in await tab.complaints()
        group.cancel_scope.cancel()
