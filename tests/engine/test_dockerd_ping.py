"""The probe of a daemon against listeners that starve it, lie to it, or answer well."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketStream

from supervisor.engine.dockerd import ping
from supervisor.probe.verdict import Answer, Verdict
from tests.engine.dockerd_rig import folder_on_disk

pytestmark = pytest.mark.anyio
OURS = {"Labels": ["a=b", "com.container-supervisor.install=ab12"]}


def http(body: str, status: str = "200 OK") -> str:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}"


@asynccontextmanager
async def daemon(*, ping_answer: str | None, info: str = "") -> AsyncIterator[Path]:
    """A listener that answers as told; None: it accepts and stays silent."""

    async def serve(stream: SocketStream) -> None:
        async with stream:
            asked = (await stream.receive()).decode()
            answer = info if "/info" in asked else ping_answer
            if answer is None:
                await anyio.sleep_forever()
            else:
                await stream.send(answer.encode())

    with folder_on_disk() as folder:
        path = folder / "docker.sock"
        async with await anyio.create_unix_listener(path) as listener, anyio.create_task_group() as group:
            group.start_soon(listener.serve, serve)
            yield path
            group.cancel_scope.cancel()


async def probe(path: Path, *, progress: bool = False) -> Verdict:
    with anyio.fail_after(10):
        return await ping.probe_daemon(path, install_uuid="ab12", progress=progress, limit_seconds=0.2)


async def test_a_daemon_with_our_label_is_good_and_its_pid_is_the_kernels_word() -> None:
    async with daemon(ping_answer=http("OK"), info=http(json.dumps(OURS))) as path:
        verdict = await probe(path)
        assert (verdict.answer, verdict.peer_pid) == (Answer.GOOD, os.getpid())


@pytest.mark.parametrize("labels", [None, [], ["com.container-supervisor.install=other"]])
async def test_a_daemon_without_our_label_never_counts(labels: list[str] | None) -> None:
    async with daemon(ping_answer=http("OK"), info=http(json.dumps({"Labels": labels}))) as path:
        verdict = await probe(path)
        assert verdict.answer is Answer.WAITING
        assert "is not the one we started" in verdict.detail


@pytest.mark.parametrize("progress", [True, False])
async def test_connected_but_silent_means_starting(progress: bool) -> None:
    async with daemon(ping_answer=None) as path:
        verdict = await probe(path, progress=progress)
        assert (verdict.answer, verdict.recovering) == (Answer.WAITING, progress)
        assert "does not answer (starting, or hung): no answer within 0.2 s" in verdict.detail


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http("no", "500 Internal Server Error"), "ping answered 500"),
        ("garbage\r\n\r\n", "does not speak HTTP"),
        ("", "closed the connection|does not speak HTTP"),
    ],
)
async def test_an_answer_that_is_no_ping_waits_with_its_reason(answer: str, said: str) -> None:
    async with daemon(ping_answer=answer) as path:
        verdict = await probe(path)
        assert verdict.answer is Answer.WAITING
        assert any(part in verdict.detail for part in said.split("|")), verdict.detail


@pytest.mark.parametrize("info", [http("{", "200 OK"), http("[]"), http("", "503 Service Unavailable")])
async def test_an_info_that_is_none_waits(info: str) -> None:
    async with daemon(ping_answer=http("OK"), info=info) as path:
        assert (await probe(path)).answer is Answer.WAITING


async def test_nothing_there_is_not_listening_yet(tmp_path: Path) -> None:
    verdict = await probe(tmp_path / "docker.sock", progress=True)
    assert verdict.recovering
    assert "does not listen yet: No such file" in verdict.detail


async def test_an_answer_cut_short_waits() -> None:
    async with daemon(ping_answer="HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nO") as path:
        assert (await probe(path)).answer is Answer.WAITING
