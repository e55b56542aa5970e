"""Ports: chosen once, remembered, never a stranger's."""

from __future__ import annotations

import os
import socket

import pytest

from supervisor.core.errors import ConfigurationError
from supervisor.services import ports as module
from supervisor.services.ports import RememberedPorts, bind_error, ephemeral_low, is_free, pick_free


class Book:
    """Remembered ports over boots: what was saved, what was said."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.saved: list[dict[str, int]] = []
        self.said: list[str] = []

    def boot(self, *, outlived: bool = False) -> RememberedPorts:
        def save() -> None:
            self.saved.append(dict(self.ports))

        return RememberedPorts(self.ports, save=save, say=self.said.append, outlived=outlived)


def test_free_port_is_chosen_saved_and_the_same_after_a_boot() -> None:
    book = Book()
    port = book.boot().port("postgres", 0)
    assert is_free(port)
    assert book.saved == [{"postgres": port}]
    assert book.boot().port("postgres", 0) == port
    assert len(book.saved) == 1
    assert book.said == []


def test_chosen_ports_are_not_those_of_outgoing_connections() -> None:
    assert all(pick_free(avoid=set()) < ephemeral_low() for _ in range(20))


def test_without_room_below_outgoing_connections_the_kernel_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ephemeral_low", lambda: 1024)
    assert is_free(pick_free(avoid=set()))


def test_our_own_listener_does_not_move_the_port_within_a_run() -> None:
    ports = Book().boot()
    port = ports.port("redis", 0)
    with socket.create_server(("127.0.0.1", port)):
        assert ports.port("redis", 0) == port


def test_remembered_port_of_a_stranger_is_left_and_it_is_said() -> None:
    book = Book()
    port = book.boot().port("redis", 0)
    with socket.create_server(("127.0.0.1", port)):
        moved = book.boot().port("redis", 0)
    assert moved != port
    assert book.ports == {"redis": moved}
    assert f"redis moves from port {port} to {moved}: {port} is taken by pid {os.getpid()} (" in book.said[0]


def test_two_names_never_share_a_port() -> None:
    book = Book()
    book.ports = {"redis": 0, "postgres": 0}
    first = book.boot().port("redis", 0)
    book.ports["postgres"] = first
    ports = book.boot()
    assert ports.port("redis", 0) == first
    assert ports.port("postgres", 0) != first


def test_wanted_port_is_used_and_not_remembered() -> None:
    book = Book()
    wanted = pick_free(avoid=set())
    assert book.boot().port("postgres", wanted) == wanted
    assert book.ports == {}


def test_taken_wanted_port_names_its_holder_and_the_setting() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError) as caught:
            Book().boot().port("postgres", port)
    assert f"port {port} for 'postgres': it is taken by pid {os.getpid()} (" in str(caught.value)
    assert "SUPERVISOR_POSTGRES_PORT" in str(caught.value)


def test_listener_on_any_address_counts_as_taken() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
        assert bind_error(port, "") != 0
    assert is_free(port)


def test_connection_that_lingers_does_not_count_as_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = listener.accept()
            # Closed on this side first, so that this port is the one in TIME_WAIT.
            accepted.close()
            assert client.recv(1) == b""
    assert is_free(port)


def test_a_port_that_our_service_may_have_kept_is_not_tried() -> None:
    book = Book()
    port = book.boot().port("postgres", 0)
    with socket.create_server(("127.0.0.1", port)):
        assert book.boot(outlived=True).port("postgres", 0) == port
        assert book.boot(outlived=True).port("redis", port) == port
        assert book.boot().port("postgres", 0) != port
