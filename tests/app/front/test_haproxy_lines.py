"""Lines, weights, statistics and counts as values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.app.front.haproxy.config import AppFront, Machine, render
from supervisor.app.front.haproxy.front import Tally
from supervisor.app.front.haproxy.lines import Lines, commands, weights
from supervisor.app.front.haproxy.runtime import Counts, Statistics, difference, parse
from supervisor.app.front.model import FrontError, Wire

MACHINE = Machine(runtime_fd=9, nobody_port=7, threads=2, max_connections=100)


@pytest.mark.parametrize(("percent", "expected"), [(5, (19, 1)), (50, (1, 1)), (95, (1, 19)), (0.01, (256, 1))])
def test_weights_are_the_smallest_that_fit(percent: float, expected: tuple[int, int]) -> None:
    assert weights(percent) == expected


@given(st.floats(min_value=0.01, max_value=99.99))
def test_weights_give_the_share_nearly(percent: float) -> None:
    most, part = weights(percent)
    assert 1 <= most <= 256
    assert 1 <= part <= 256
    assert abs(100 * part / (most + part) - percent) <= 0.4


def test_lines_that_come_into_rotation_are_commanded_first() -> None:
    lines = Lines().at("g1", 4001).at("g2", 4002).alone("g2")
    states = [line for line in commands(["app"], lines) if " state " in line]
    assert states == [
        "set server app/g2 state ready",
        "set server app/g1 state maint",
        "set server app/g3 state maint",
        "set server app/nobody state maint",
    ]
    assert commands(["app"], lines.none(waiting=True))[0] == "set server app/nobody state ready"


def test_a_line_that_goes_leaves_the_other_or_a_wait() -> None:
    both = Lines().shared("g1", "g2", 10)
    assert both.without("g1").is_ready("g2")
    assert not both.without("g1").waiting
    assert both.without("g1").without("g2").waiting
    assert not Lines().without("g1").waiting


def test_the_configuration_comes_up_with_the_lines_as_they_are() -> None:
    app = AppFront(name="app", public_port=80, public_fds=(3, 4), hold_socket="/run/it's here/hold.sock")
    lines = Lines().at("g2", 4002).alone("g2")
    text = render(MACHINE, [app], {"app": lines})
    for backend in ("backend app:app\n", "backend app:app:streams\n"):
        servers = text.partition(backend)[2].partition("\n\n")[0]
        assert "server g1 127.0.0.1:1 weight 100 disabled" in servers
        assert "server g2 127.0.0.1:4002 weight 100\n" in servers
        assert "server nobody 127.0.0.1:7 disabled" in servers
        assert r"server hold 'unix@/run/it'\''s here/hold.sock' backup" in servers
    waiting = render(MACHINE, [app], {"app": lines.none(waiting=True)})
    assert "server nobody 127.0.0.1:7\n" in waiting
    assert "4002 weight 100 disabled" in waiting


def test_plain_tcp_has_one_backend_and_no_holding_answer() -> None:
    app = AppFront(name="app", public_port=80, public_fds=(3,), wire=Wire.TCP, hold_socket="/run/hold.sock")
    text = render(MACHINE, [app], {"app": Lines()})
    assert text.count("\nbackend ") == 1
    assert "hold.sock" not in text
    assert "http-request" not in text


STATS = """
no need to change the addr, port changed from '1' to '2'

# pxname,new_column,svname,scur,stot,status,weight,econ,wretr,hrsp_2xx,hrsp_5xx,addr,
app,?,g1,2,9,no check,100,1,3,5,2,127.0.0.1:4001,
app,?,g2,0,0,MAINT,100,0,0,0,0,127.0.0.1:1,
app,?,g3,0,0,MAINT,1,0,0,0,0,127.0.0.1:1,
app,?,nobody,0,0,MAINT (via x),1,0,0,0,0,127.0.0.1:7,
app,?,BACKEND,4,9,UP,100,1,3,,,,

"""


def test_statistics_are_read_by_the_names_of_their_columns() -> None:
    found = Statistics(parse(STATS))
    line = found.of("app", "g1")
    assert (line.ready, line.address, line.busy) == (True, "127.0.0.1:4001", 2)
    assert line.counts == Counts(sessions=9, answered=7, failed=2, refused=4)
    assert found.of("app", "BACKEND").busy == 4
    with pytest.raises(FrontError, match="does not list it"):
        found.of("app", "g4")


@pytest.mark.parametrize(
    ("counts", "busy", "lost"),
    [
        (Counts(sessions=5, answered=5), 0, 0),
        (Counts(sessions=5, answered=3, broken=2), 0, 2),
        (Counts(sessions=5, answered=3, broken=4), 0, 2),  # both were reset, which counts twice
        (Counts(sessions=5, answered=3, broken=2), 2, 0),  # counted already, though they still are in flight
        (Counts(sessions=9, answered=5, refused=4), 0, 0),
        (Counts(sessions=2, answered=2, interim=2, broken=2), 0, 2),  # told to go on, and no more
        (Counts(sessions=1, answered=2, interim=1), 0, 0),
        (Counts(sessions=5, answered=5, broken=2, cut=2), 0, 2),
        (Counts(sessions=5, answered=4, broken=3, cut=1), 0, 2),
        (Counts(sessions=5, answered=5, broken=1), 0, 0),  # answered after its client had reset it
    ],
)
def test_lost_are_those_without_a_whole_answer_each_once(counts: Counts, busy: int, lost: int) -> None:
    assert counts.lost(busy) == lost


def test_a_line_that_is_not_as_wanted_is_named() -> None:
    found = Statistics(parse(STATS))
    lines = Lines().at("g1", 4001).alone("g1")
    assert difference(["app"], lines, found) == ""
    assert "app/g1 is in rotation at 127.0.0.1:4001" in difference(["app"], lines.at("g1", 4002), found)
    assert "app/g1 is in rotation" in difference(["app"], lines.none(waiting=False), found)
    assert difference(["app"], lines.none(waiting=True), found) == "app/nobody is out of rotation"
    assert "with weight 100" in difference(["app"], lines.shared("g1", "g2", 50), found)


def test_a_tally_begins_at_its_base_and_goes_on_over_a_restart() -> None:
    tally = Tally(1, Counts(answered=100))
    assert tally.look(1, Counts(answered=103)).answered == 3
    assert tally.look(2, Counts(answered=2)).answered == 5
    assert tally.look(2, Counts(answered=4)).answered == 7
    assert tally.look(4, Counts(answered=1)).answered == 8
