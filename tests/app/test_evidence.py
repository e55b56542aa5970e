"""Why a generation was refused: hints from plain values, then from real children that get PORT wrong in their ways."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from supervisor.app.evidence import OUTPUT_LINES, Evidence, Seen, hints, look
from supervisor.app.front.model import Place
from supervisor.process.child import Child, Command
from supervisor.process.listening import Listener
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from tests.probe.listeners import closed_port

pytestmark = pytest.mark.anyio

LIMIT_SECONDS = 15
HAS_IPV6 = Path("/proc/net/if_inet6").exists() and "0" * 31 + "1 " in Path("/proc/net/if_inet6").read_text()
NEEDS_IPV6 = pytest.mark.skipif(not HAS_IPV6, reason="::1 is not there")
PLACE = Place("g1", "127.0.0.1", 21003)
IGNORES = (
    "it ignores PORT (21003) and tried the public port 3000, which the front holds; "
    "let it listen on the port in PORT, or set SUPERVISOR_FRONT=restart"
)
NAMELESS = (
    "an address it asked for is in use; let it listen on the port in PORT (21003), "
    "as the front holds the public port 3000, or set SUPERVISOR_FRONT=restart"
)
NODE = """Error: listen EADDRINUSE: address already in use :::3000
    at Server.setupListenHandle [as _listen2] (node:net:1908:16)
    at listenInCluster (node:net:1965:12)
Emitted 'error' event on Server instance at:
    at emitErrorNT (node:net:1944:8) {
  code: 'EADDRINUSE',
  errno: -98,
  syscall: 'listen',
  address: '::',
  port: 3000
}"""
PINO = (
    '{"level":60,"time":1767225600000,"pid":4242,"hostname":"ab12","err":{"type":"Error",'
    '"message":"listen EADDRINUSE: address already in use 0.0.0.0:3000","port":3000}}'
)


def seen(*listeners: Listener, output: str = "", answer: str = "", alive: bool = True, public_port: int = 3000) -> Seen:
    return Seen(
        place=PLACE,
        public_port=public_port,
        alive=alive,
        answer=answer,
        output=output.splitlines(),
        listeners=listeners,
    )


@pytest.mark.parametrize(
    "output",
    [
        NODE,
        PINO,
        "  code: 'EADDRINUSE',\n  errno: -98,\n  syscall: 'listen',\n  address: '::',\n  port: 3000",
        "ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 3000): address already in use",
        "[2026-01-01 10:20:30 +0000] [7] [ERROR] Connection in use: ('0.0.0.0', 3000)",
        "Address already in use\nPort 3000 is in use by another program.",
        "2026/01/01 10:20:30 listen tcp :3000: bind: address already in use",
        "Description:\n\nWeb server failed to start. Port 3000 was already in use.",
        'Error: Address already in use - bind(2) for "0.0.0.0" port 3000 (Errno::EADDRINUSE)',
        "nginx: [emerg] bind() to 0.0.0.0:3000 failed (98: Address already in use)",
        "System.IO.IOException: Failed to bind to address http://[::]:3000: address already in use.",
        "[ALERT] (1) : cannot bind socket (Address already in use) for [0.0.0.0:3000]",
        "httpd: bind: Address in use (port 3000)",
        " ⚠ Port 3000 is in use, trying 3001 instead.",
    ],
)
def test_an_app_that_took_the_public_port_is_told_so_by_name(output: str) -> None:
    assert hints(seen(output=output, alive=False)) == (IGNORES,)


@pytest.mark.parametrize(
    "output",
    [
        "OSError: [Errno 98] Address already in use",
        "java.net.BindException: Address already in use\n\tat java.base/sun.nio.ch.Net.bind(Net.java:555)",
        'Error: Os { code: 98, kind: AddrInUse, message: "Address already in use" }',
        "Error: Address already in use (os error 98)",
        "10:20:30.123 bind: Address in use",
    ],
)
def test_an_address_in_use_without_its_port_is_told_with_both_ports(output: str) -> None:
    assert hints(seen(output=output, alive=False)) == (NAMELESS,)


@pytest.mark.parametrize(
    "output",
    ["listen tcp 0.0.0.0:9090: bind: address already in use", PINO.replace("3000", "9090")],
)
def test_a_second_port_that_the_serving_generation_has_is_told(output: str) -> None:
    assert hints(seen(output=output, alive=False)) == (
        "it tried port 9090, which is in use, perhaps by the generation that serves; "
        "let it choose a free one, or set SUPERVISOR_OVERLAP=false",
    )


def test_its_own_port_in_use_is_told() -> None:
    output = "listen tcp 127.0.0.1:21003: bind: address already in use"
    assert hints(seen(output=output, alive=False)) == (
        "it found the port in PORT (21003) in use: does it listen there twice?",
    )


@pytest.mark.parametrize("output", ["", "listening on 3000", "13000 addresses", "Error: port 3000 refused"])
def test_output_without_the_complaint_gives_no_hint(output: str) -> None:
    assert hints(seen(output=output, alive=False)) == ()


def test_a_longer_number_is_not_the_public_port() -> None:
    (hint,) = hints(seen(output="listen tcp :30001: bind: address already in use", alive=False))
    assert hint.startswith("it tried port 30001,")


def test_where_the_app_is_given_the_public_port_itself_it_ignores_nothing() -> None:
    assert hints(seen(output=NODE, alive=False, public_port=PLACE.port)) == ()


def test_another_port_is_told() -> None:
    assert hints(seen(Listener("0.0.0.0", 8080))) == ("it listens on port 8080, not on the port in PORT (21003)",)
    two = seen(Listener("127.0.0.1", 9229), Listener("0.0.0.0", 8080))
    assert hints(two) == ("it listens on ports 8080, 9229, not on the port in PORT (21003)",)


def test_no_port_is_told_of_a_living_one_only() -> None:
    assert hints(seen()) == (
        "it listens on no port; let it listen on the port in PORT (21003), or set SUPERVISOR_APP_HEALTH=none for an "
        "app without one",
    )
    assert hints(seen(alive=False)) == ()


def test_what_cannot_be_seen_is_not_guessed() -> None:
    assert hints(Seen(place=PLACE, public_port=3000, alive=True, listeners=None)) == ()


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "::", "::ffff:127.0.0.1"])
def test_addresses_that_are_reached_give_no_hint(address: str) -> None:
    assert hints(seen(Listener(address, 21003), Listener("172.17.0.2", 21003), Listener("0.0.0.0", 9229))) == ()


@pytest.mark.parametrize(("address", "words"), [("172.17.0.2", "172.17.0.2:21003"), ("::1", "[::1]:21003")])
def test_an_address_that_is_not_reached_is_told_with_the_variables(address: str, words: str) -> None:
    assert hints(seen(Listener(address, 21003))) == (
        f"it listens on {words} only, which 127.0.0.1 does not reach; "
        f"let it listen on the address in HOST and HOSTNAME (127.0.0.1), or on 0.0.0.0",
    )


def test_ipv6_alone_is_told_once_a_probe_was_refused() -> None:
    (hint,) = hints(seen(Listener("::", 21003), answer="cannot connect to 127.0.0.1:21003: connection refused"))
    assert hint.startswith("it listens on [::]:21003 only, ")


def test_evidence_reads_well_with_and_without_output() -> None:
    full = Evidence("status 500", ("first", "second"), ("one", "two"))
    assert str(full) == "last answer: status 500; first; second\n  last lines of its output:\n    one\n    two"
    assert full.as_dict() == {"answer": "status 500", "hints": ["first", "second"], "output": ["one", "two"]}
    assert str(Evidence("", ("first",), ())) == "first\n  it wrote no output"


SERVES = """
import os, signal, socket
family = socket.AF_INET6 if ":" in {address!r} else socket.AF_INET
ours = socket.socket(family)
if family == socket.AF_INET6:
    ours.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
ours.bind(({address!r}, {port}))
ours.listen()
print("up", flush=True)
signal.pause()
"""


@pytest.fixture
async def reaper() -> AsyncIterator[Reaper]:
    async with anyio.create_task_group() as group:
        made = Reaper(linger_seconds=0)
        await group.start(made.run)
        yield made
        group.cancel_scope.cancel()


async def start(reaper: Reaper, code: str, ring: Ring) -> Child:
    """A child that has written a line."""
    before = ring.number
    child = reaper.spawn(Command("app", [sys.executable, "-c", code], dict(os.environ)), ring)
    with anyio.fail_after(LIMIT_SECONDS):
        await ring.wait_newer(before)
    return child


@pytest.mark.parametrize(
    ("address", "own_port", "said"),
    [
        ("127.0.0.1", True, ""),
        ("0.0.0.0", False, "it listens on port "),
        ("127.0.0.2", True, "it listens on 127.0.0.2:"),
        pytest.param("::1", True, "it listens on [::1]:", marks=NEEDS_IPV6),
        pytest.param("::", True, "it listens on [::]:", marks=NEEDS_IPV6),
    ],
)
async def test_a_real_listener_is_seen_through(reaper: Reaper, address: str, own_port: bool, said: str) -> None:
    place = Place("g1", "127.0.0.1", closed_port())
    port = place.port if own_port else closed_port()
    # A process in between, as `npm start` and the like have one: the tree is searched, not the child alone.
    serves = SERVES.format(address=address, port=port)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {serves!r}])"
    child = await start(reaper, code, Ring("app"))
    evidence = await look(child, place, public_port=3000, answer="connection refused")
    await child.kill()
    assert evidence.output == ("up",)
    assert [hint[: len(said)] for hint in evidence.hints] == ([said] if said else [])


async def test_a_real_app_that_takes_the_public_port_is_told_so(reaper: Reaper) -> None:
    """asyncio names the port, as uvicorn does; a line of an earlier generation in the same ring does not count."""
    ring = Ring("app")
    ring.add("an earlier one: listen tcp :9999: bind: address already in use")
    place = Place("g1", "127.0.0.1", closed_port())
    with socket.create_server(("0.0.0.0", 0)) as front:
        public_port = front.getsockname()[1]
        code = f"import asyncio; asyncio.run(asyncio.start_server(None, '0.0.0.0', {public_port}))"
        child = await start(reaper, code, ring)
        with anyio.fail_after(LIMIT_SECONDS):
            await child.wait()
        evidence = await look(child, place, public_port=public_port, answer="connection refused", since=1)
    (hint,) = evidence.hints
    assert hint.startswith(f"it ignores PORT ({place.port}) and tried the public port {public_port}, which the front")
    assert evidence.output[-1].endswith("address already in use")
    assert "earlier" not in str(evidence)


async def test_a_complaint_above_the_last_lines_is_found(reaper: Reaper) -> None:
    code = "print('bind: Address in use (port 3000)')\nfor n in range(50): print(n)"
    child = await start(reaper, code, Ring("app"))
    with anyio.fail_after(LIMIT_SECONDS):
        await child.wait()
    evidence = await look(child, PLACE, public_port=3000, answer="")
    assert evidence.hints == (IGNORES,)
    assert evidence.output == tuple(str(n) for n in range(50 - OUTPUT_LINES, 50))
