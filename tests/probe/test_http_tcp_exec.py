"""HTTP, TCP and command probes against real sockets, well-behaved and not."""

from __future__ import annotations

import anyio
import pytest
from anyio.abc import SocketStream

from supervisor.probe.exec import probe_exec
from supervisor.probe.http import MAX_BODY_BYTES, Target, probe_http
from supervisor.probe.tcp import probe_tcp
from supervisor.probe.verdict import Answer
from tests.probe.listeners import answer, closed_port, hang_up, serve, silence

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [200, 204, 302, 399])
async def test_http_status_of_success_is_good(status: int) -> None:
    async with serve(answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)) as port:
        found = await probe_http(f"http://127.0.0.1:{port}/health")
    assert (found.status, found.verdict.good) == (status, True)
    assert found.verdict.detail == f"/health answered {status}"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
async def test_http_status_of_failure_is_waiting_and_told(status: int) -> None:
    async with serve(answer(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % status)) as port:
        found = await probe_http(f"http://127.0.0.1:{port}/")
    assert (found.status, found.verdict.answer) == (status, Answer.WAITING)


async def test_http_request_is_one_get_that_closes() -> None:
    requests: list[bytes] = []

    async def record(stream: SocketStream) -> None:
        requests.append(await stream.receive())
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")

    async with serve(record) as port:
        await probe_http(f"http://127.0.0.1:{port}/a/b?c=d", host_header="app.example")
        await probe_http(f"http://localhost:{port}")
    first, second = (request.lower() for request in requests)
    assert first.startswith(b"get /a/b?c=d http/1.1\r\n")
    assert b"\r\nhost: app.example\r\n" in first
    assert b"\r\nconnection: close\r\n" in first
    assert second.startswith(b"get / http/1.1\r\n")
    assert f"\r\nhost: localhost:{port}\r\n".encode() in second


async def test_http_endless_body_is_cut_off_and_good() -> None:
    sent = 0

    async def endless(stream: SocketStream) -> None:
        nonlocal sent
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 4096)
            sent += 4096

    async with serve(endless) as port:
        found = await probe_http(f"http://127.0.0.1:{port}/")
    assert found.verdict.good
    assert sent >= MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000, "does not speak HTTP"),
        (b"", "closed the connection without an answer"),
    ],
)
async def test_http_garbage_is_waiting(sent: bytes, detail: str) -> None:
    async with serve(answer(sent) if sent else hang_up) as port:
        found = await probe_http(f"http://127.0.0.1:{port}/")
    assert found.status is None
    assert found.verdict.answer is Answer.WAITING
    assert detail in found.verdict.detail


async def test_http_informational_answers_are_passed_over() -> None:
    async with serve(answer(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")) as port:
        assert (await probe_http(f"http://127.0.0.1:{port}/")).status == 503


async def test_http_silence_ends_at_the_limit() -> None:
    async with serve(silence) as port:
        with anyio.fail_after(5):
            found = await probe_http(f"http://127.0.0.1:{port}/", limit_seconds=0.1)
    assert found.verdict.detail == f"no answer from http://127.0.0.1:{port}/ within 0.1 s"


async def test_http_refused_is_waiting() -> None:
    found = await probe_http(f"http://127.0.0.1:{closed_port()}/")
    assert found.verdict.answer is Answer.WAITING
    assert "connection refused" in found.verdict.detail


async def test_https_to_a_plain_server_is_waiting() -> None:
    async with serve(answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        found = await probe_http(f"https://127.0.0.1:{port}/")
    assert found.verdict.answer is Answer.WAITING
    assert "TLS" in found.verdict.detail


@pytest.mark.parametrize("url", ["ftp://x/", "127.0.0.1:80", "http:///path", "http://x/a b", "http://x/\u00e4"])
def test_unusable_url_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="http"):
        Target.parse(url)


def test_authority_leaves_the_default_port_out_and_brackets_ipv6() -> None:
    assert Target.parse("http://x").authority == "x"
    assert Target.parse("https://x:443/").authority == "x"
    assert Target.parse("http://[::1]:8080/").authority == "[::1]:8080"


async def test_tcp_listener_is_good_and_a_closed_port_is_waiting() -> None:
    async with serve(silence) as port:
        assert (await probe_tcp("127.0.0.1", port)).good
    verdict = await probe_tcp("127.0.0.1", closed_port())
    assert verdict.answer is Answer.WAITING
    assert "connection refused" in verdict.detail


async def test_tcp_unknown_host_is_waiting() -> None:
    verdict = await probe_tcp("no-such-host.invalid", 80)
    assert verdict.answer is Answer.WAITING
    assert verdict.detail.startswith("cannot connect to no-such-host.invalid:80: ")


async def test_tcp_full_backlog_ends_at_the_limit() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            with anyio.fail_after(5):
                verdict = await probe_tcp("127.0.0.1", port, limit_seconds=0.1)
    assert verdict.answer is Answer.WAITING
    assert "within 0.1 s" in verdict.detail


@pytest.mark.parametrize(
    ("status", "output", "wanted", "detail"),
    [
        (0, "fine\n", Answer.GOOD, "fine"),
        (0, "", Answer.GOOD, ""),
        (1, "one\ntwo\n", Answer.WAITING, "the health command ended with status 1: two"),
        (127, "", Answer.WAITING, "the health command cannot be run (status 127)"),
    ],
)
async def test_exec_status_decides_and_the_last_line_is_told(
    status: int, output: str, wanted: Answer, detail: str
) -> None:
    async def run() -> tuple[int, str]:
        return status, output

    verdict = await probe_exec(run)
    assert (verdict.answer, verdict.detail) == (wanted, detail)


async def test_exec_that_does_not_end_is_cancelled_at_the_limit() -> None:
    cancelled = anyio.Event()

    async def run() -> tuple[int, str]:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()
        raise AssertionError

    verdict = await probe_exec(run, limit_seconds=0.05)
    assert verdict.answer is Answer.WAITING
    assert cancelled.is_set()
