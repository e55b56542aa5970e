"""Who listens, asked of the kernel; `/proc/net/tcp` is the witness."""

from __future__ import annotations

import socket

import pytest

from supervisor.process import procfs, sock_diag


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_listener_is_found_and_its_inode_is_that_of_the_kernels_table(family: int, host: str) -> None:
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        found = sock_diag.ask_kernel(port)
        assert found == {inode for inode, (_, number) in sock_diag.read_listening().items() if number == port}
        assert found
    assert sock_diag.ask_kernel(port) == set()


def test_a_connection_on_a_port_is_not_taken_for_a_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        ours = socket.create_connection(("127.0.0.1", port))
        theirs, _ = listener.accept()
    with ours, theirs:
        assert sock_diag.ask_kernel(port) == set()


def test_where_the_kernel_cannot_be_asked_the_table_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sock_diag, "_NETLINK_SOCK_DIAG", 31)  # no such protocol
    assert sock_diag.ask_kernel(1) is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert procfs.port_owners(listener.getsockname()[1])
