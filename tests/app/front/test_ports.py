"""The public sockets, and the private ports."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from supervisor.app.front.ports import PortPool, default_range, listen
from supervisor.core.errors import ConfigurationError
from supervisor.process.procfs import command_line


def test_public_sockets_are_as_a_front_needs_them() -> None:
    listeners = listen(0)
    try:
        assert {each.family for each in listeners} == {socket.AF_INET, socket.AF_INET6}
        assert len({each.getsockname()[1] for each in listeners}) == 1
        for each in listeners:
            assert each.getblocking() is False
            assert not os.get_inheritable(each.fileno())
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            table = Path("/proc/net/tcp" if each.family == socket.AF_INET else "/proc/net/tcp6").read_text()
            assert f":{each.getsockname()[1]:04X} " in table
    finally:
        for each in listeners:
            each.close()


def test_public_sockets_take_a_port_again_at_once() -> None:
    for _ in range(2):
        [listener] = listen(0, hosts=("127.0.0.1",))
        with listener:
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port)) as client:
                accepted = _accept(listener)
                accepted.close()  # first, so that this end stays in TIME_WAIT
                assert client.recv(1) == b""
        [again] = listen(port, hosts=("127.0.0.1",))
        again.close()


def _accept(listener: socket.socket) -> socket.socket:
    listener.settimeout(5)
    return listener.accept()[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_taken_public_port_names_its_owner_and_leaves_no_socket(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as stranger:
        port = stranger.getsockname()[1]
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(ConfigurationError, match="choose another with PORT") as caught:
            listen(port)
        assert len(os.listdir("/proc/self/fd")) == before
    assert f"pid {os.getpid()} ({command_line(os.getpid())})" in str(caught.value)


def test_a_kernel_without_ipv6_gets_ipv4_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    def without_six(family: int = -1, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    monkeypatch.setattr(socket, "socket", without_six)
    [listener] = listen(0)
    with listener:
        assert listener.family == socket.AF_INET


def free_run(count: int) -> int:
    """The first of `count` ports in a row that nobody has, nor had a moment ago."""
    low, high = default_range(32768, 60999)
    for start in range(low + os.getpid() % 1000, high - count):
        try:
            for port in range(start, start + count):
                with socket.socket() as probe:
                    probe.bind(("0.0.0.0", port))
        except OSError:
            continue
        return start
    raise AssertionError("no free ports")


def test_private_ports_are_given_in_turn() -> None:
    start = free_run(3)
    pool = PortPool(start, start + 2)
    assert [pool.take() for _ in range(5)] == [start, start + 1, start + 2, start, start + 1]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_private_port_a_stranger_has_is_passed_over(host: str) -> None:
    start = free_run(3)
    with socket.create_server((host, start + 1)):
        assert [PortPool(start, start + 2).take() for _ in range(1)] == [start]
        pool = PortPool(start, start + 2)
        assert [pool.take() for _ in range(3)] == [start, start + 2, start]


def test_a_private_port_with_connections_just_closed_is_the_last_choice() -> None:
    start = free_run(2)
    with socket.create_server(("127.0.0.1", start)) as server:
        with socket.create_connection(("127.0.0.1", start)) as client:
            _accept(server).close()  # first, so that this end stays in TIME_WAIT
            assert client.recv(1) == b""
        with pytest.raises(ConfigurationError):
            PortPool(start, start).take()  # somebody still listens
    assert [PortPool(start, start + 1).take() for _ in range(2)] == [start + 1, start + 1]
    assert PortPool(start, start).take() == start


def test_no_private_port_left_is_told_with_who_has_the_first() -> None:
    start = free_run(1)
    with (
        socket.create_server(("127.0.0.1", start)),
        pytest.raises(ConfigurationError, match=rf"{start} to {start} are all taken, {start} by pid {os.getpid()} "),
    ):
        PortPool(start, start).take()


@pytest.mark.parametrize(
    ("ephemeral", "private"),
    [
        ((32768, 60999), (28768, 32767)),
        ((10000, 65535), (6000, 9999)),
        ((2000, 65535), (1024, 1999)),
        ((1024, 60000), (60001, 64000)),
        ((1024, 65000), (65001, 65535)),
        ((1024, 65535), (20000, 23999)),
    ],
)
def test_private_ports_are_outside_of_the_kernels_own(ephemeral: tuple[int, int], private: tuple[int, int]) -> None:
    assert default_range(*ephemeral) == private


def test_ports_begin_where_they_are_told_to() -> None:
    start = free_run(3)
    pool = PortPool(start, start + 2, begin=4)
    assert [pool.take() for _ in range(3)] == [start + 1, start + 2, start]
