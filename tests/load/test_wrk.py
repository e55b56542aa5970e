"""wrk's output, read; and wrk itself, where it is installed."""

from __future__ import annotations

import anyio
import pytest
from anyio import to_thread
from anyio.abc import SocketStream

from tests.load import wrk
from tests.load.report import Summary
from tests.probe.listeners import serve

GOOD = """\
Running 2s test @ http://127.0.0.1:3000/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.38ms    1.48ms   1.20s    89.56%
    Req/Sec    11.47k     1.87k   13.29k    80.00%
  Latency Distribution
     50%  950.00us
     75%    4.66ms
     90%    5.59ms
     99%   11.35ms
  22873 requests in 2.01s, 3.08MB read
"""
BAD = "  Socket errors: connect 0, read 51, write 42462, timeout 2\n  Non-2xx or 3xx responses: 73\n"


def test_output_without_errors_has_none() -> None:
    found = wrk.parse(GOOD + "Requests/sec:  11386.98\n")

    assert (found.sent, found.answered, found.failures) == (22873, 22873, {})
    assert (found.longest_ms, found.p50_ms, found.p99_ms) == pytest.approx((1200, 0.95, 11.35))


def test_errors_are_told_by_kind_and_added_to_what_was_sent() -> None:
    found = wrk.parse(GOOD + BAD)

    assert found.failures == {
        "reset or closed before the answer": 51,
        "refused or reset": 42462,
        "timeout": 2,
        "status not 2xx": 73,
    }
    assert (found.sent, found.answered) == (22873 + 51 + 42462 + 2, 22873 - 73)
    assert found.failed == sum(found.failures.values())


def test_other_output_is_an_error() -> None:
    with pytest.raises(ValueError, match="no count of requests"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.anyio
@pytest.mark.skipif(not wrk.is_installed(), reason="wrk is not installed")
async def test_wrk_is_run_and_its_output_read() -> None:
    async def handler(stream: SocketStream) -> None:
        while await stream.receive():
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")

    def load(port: int) -> Summary:
        with wrk.Wrk(f"http://127.0.0.1:{port}/", seconds=1, connections=5) as running:
            return running.summary()

    async with serve(handler) as port:
        with anyio.fail_after(30):
            found = await to_thread.run_sync(load, port)

    assert found.failed == 0
    assert found.answered > 100
