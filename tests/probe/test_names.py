"""Whether the engine's name server knows a name: asked of a real socket that answers as told."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from supervisor.probe import names
from supervisor.probe.names import has_address, is_known, question

pytestmark = pytest.mark.anyio

Answer = Callable[[bytes], bytes]
_NO_SUCH_NAME, _ADDRESS = 3, b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04\x0a\x00\x00\x02"


def answered(asked: bytes, *, code: int = 0, records: bytes = _ADDRESS, number: int | None = None) -> bytes:
    (wanted,) = struct.unpack(">H", asked[:2])
    head = struct.pack(">6H", wanted if number is None else number, 0x8180 | code, 1, 1 if records else 0, 0, 0)
    return head + asked[12:] + records


@contextmanager
def server(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Iterator[list[bytes]]:
    asked: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(5)

        def serve() -> None:
            data, whom = listening.recvfrom(512)
            asked.append(data)
            listening.sendto(answer(data), whom)

        thread = threading.Thread(target=serve)
        thread.start()
        monkeypatch.setattr(names, "_SERVER", listening.getsockname())
        monkeypatch.setattr(names, "_LIMIT_SECONDS", 2.0)
        yield asked
        thread.join(5)


async def test_a_name_with_an_address_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(monkeypatch, answered) as asked:
        assert await is_known("shop-postgres")
    assert b"\x0dshop-postgres\x00\x00\x01\x00\x01" in asked[0]


@pytest.mark.parametrize(
    "answer",
    [
        lambda asked: answered(asked, code=_NO_SUCH_NAME, records=b""),
        lambda asked: answered(asked, records=b""),
        lambda asked: answered(asked, number=(struct.unpack(">H", asked[:2])[0] + 1) & 0xFFFF),
        lambda asked: b"\x00" * 5,
    ],
    ids=["no such name", "no record", "answer to another question", "cut short"],
)
async def test_every_other_answer_is_a_no(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    with server(monkeypatch, answer):
        assert not await is_known("shop-postgres")


async def test_nobody_there_or_silence_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        monkeypatch.setattr(names, "_SERVER", silent.getsockname())
        assert not await is_known("shop-postgres")
        address = silent.getsockname()
    monkeypatch.setattr(names, "_SERVER", address)
    assert not await is_known("shop-postgres")


def test_a_name_with_dots_is_asked_label_by_label() -> None:
    assert question("a.bc", 7)[12:] == b"\x01a\x02bc\x00\x00\x01\x00\x01"
    assert not has_address(b"", 7)
