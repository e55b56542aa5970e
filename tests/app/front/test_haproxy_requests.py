"""What HAProxy lets through, what it refuses, and what it adds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from supervisor.app.front.model import Wire
from supervisor.process.child import Command
from supervisor.process.output import Ring
from tests.app.front.haproxy_rig import Rig, open_rig
from tests.app.front.http_app import LIMIT_SECONDS, Answer, Client, ask
from tests.probe.listeners import closed_port

pytestmark = pytest.mark.anyio

RELAYED: dict[str, Any] = {
    "X_Forwarded_For": "203.0.113.9",
    "X_Forwarded_Proto": "https",
    "X_Forwarded_Host": "shop.example",
    "X_Forwarded_Port": "443",
    "X_Real_IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
}


def forwarded(answer: Answer) -> dict[str, str]:
    headers: dict[str, str] = answer.json()["headers"]
    return {name: value for name, value in headers.items() if name.startswith("x-") or name == "forwarded"}


async def test_what_a_trusted_proxy_says_of_its_client_is_left_as_it_is() -> None:
    async with open_rig() as rig, rig.generation() as (place, _):
        await rig.front.switch(place)
        expected = {name.lower().replace("_", "-"): value for name, value in RELAYED.items()}
        assert forwarded(await ask(rig.port, **RELAYED)) == expected


async def test_a_trusted_peer_that_is_no_proxy_is_the_client_itself() -> None:
    async with open_rig() as rig, rig.generation() as (place, _):
        await rig.front.switch(place)
        assert forwarded(await ask(rig.port, X_Forwarded_Proto="https", X_Real_IP="203.0.113.9")) == ours(rig)


@pytest.mark.parametrize("trusted", [("192.0.2.0/24", "2001:db8::/32"), ()], ids=["others", "nobody"])
async def test_what_a_stranger_says_of_itself_is_replaced(trusted: tuple[str, ...]) -> None:
    async with open_rig(trusted=trusted) as rig, rig.generation() as (place, _):
        await rig.front.switch(place)
        assert forwarded(await ask(rig.port, **RELAYED)) == ours(rig)
        async with Client(rig.port, host="::1") as client:
            assert forwarded(await client.ask(**RELAYED)) == ours(rig, "::1")


def ours(rig: Rig, client: str = "127.0.0.1") -> dict[str, str]:
    return {
        "x-forwarded-for": client,
        "x-forwarded-proto": "http",
        "x-forwarded-host": "app.example",
        "x-forwarded-port": str(rig.port),
    }


async def test_headers_pass_up_to_64_kib_and_are_refused_beyond() -> None:
    async with open_rig() as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        assert (await ask(rig.port, X_Long="y" * 63_000)).status == 200
        async with Client(rig.port) as client:
            with_long = b"GET / HTTP/1.1\r\nHost: app.example\r\nX-Long: " + b"y" * 70_000 + b"\r\n\r\n"
            await client.send(with_long)
            assert (await client.answer()).status == 400
        assert [len(request.headers["x-long"]) for request in app.requests] == [63_000]


SMUGGLED = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    "a length with a sign": b"Content-Length: +5\r\n\r\nabcde",
    "no number as chunk": b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than said": b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "a bare line feed within": b"X-A: b\nContent-Length: 5\x00\r\n\r\nabcde",
}


@pytest.mark.parametrize("rest", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_a_request_two_readers_could_read_differently_is_refused(rest: bytes) -> None:
    async with open_rig() as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        async with Client(rig.port) as client:
            await client.send(b"POST / HTTP/1.1\r\nHost: app.example\r\n" + rest)
            assert (await client.answer()).status == 400
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(LIMIT_SECONDS):
                await client.reader.some()
        assert app.requests == []


async def test_a_length_beside_chunks_is_taken_out_and_the_connection_ends() -> None:
    """RFC 9112, 6.3: chunks win. What follows them is never read as a request."""
    async with open_rig() as rig, rig.generation() as (place, app):
        await rig.front.switch(place)
        async with Client(rig.port) as client:
            both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            second = b"GET /smuggled HTTP/1.1\r\nHost: app.example\r\n\r\n"
            await client.send(b"POST / HTTP/1.1\r\nHost: app.example\r\n" + both + second)
            assert (await client.answer()).headers["connection"] == "close"
            with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)), anyio.fail_after(LIMIT_SECONDS):
                await client.reader.some()
        assert [request.path for request in app.requests] == ["/"]
        assert "content-length" not in app.requests[0].headers


BOTH_SIDES = """
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
    timeout http-request 10s
frontend client
    bind 127.0.0.1:{entry}
    default_backend front
backend front
    server front 127.0.0.1:{front} proto h2
frontend app
    bind 127.0.0.1:{app} proto h2
    http-request return status 200 content-type text/plain lf-string "%HV for %[req.hdr(x-forwarded-port)]"
"""


async def test_http_2_without_tls_is_spoken_on_both_sides(tmp_path: Path) -> None:
    """Another HAProxy is the client, for a request in HTTP/1.1, and the app, which knows HTTP/2 only."""
    async with open_rig(Wire.H2C) as rig:
        place = await rig.front.take_place()
        await rig.front.switch(place)
        entry = closed_port()
        file = tmp_path / "both.cfg"
        file.write_text(BOTH_SIDES.format(entry=entry, front=rig.port, app=place.port))
        command = Command(name="both", argv=["haproxy", "-db", "-f", os.fspath(file)], env=dict(os.environ))
        rig.reaper.spawn(command, Ring("both"))
        answer = await when_up(entry)
        assert (answer.status, answer.body.decode()) == (200, f"HTTP/2.0 for {rig.port}")
        assert (await rig.traffic(place)).answered == 1


async def when_up(port: int) -> Answer:
    """The first answer of a server that is being started."""
    with anyio.fail_after(LIMIT_SECONDS):
        while True:
            try:
                return await ask(port)
            except OSError:
                await anyio.sleep(0.01)
