from __future__ import annotations

import anyio
import pytest

from supervisor.core.events import Notice
from supervisor.observe.eventlog import EventLog

pytestmark = pytest.mark.anyio


def _fill(log: EventLog, count: int) -> None:
    for number in range(count):
        log.publish(Notice(message=str(number + 1)))


async def test_only_the_last_events_are_kept() -> None:
    log = EventLog(kept=3)
    _fill(log, 5)
    assert [(event["n"], event["message"]) for event in log.tail(10)] == [(3, "3"), (4, "4"), (5, "5")]
    assert [event["n"] for event in log.tail(1)] == [5]
    assert log.tail(0) == []


async def test_stream_has_backlog_and_new_events_without_a_gap() -> None:
    log = EventLog()
    _fill(log, 3)
    with anyio.fail_after(5), log.subscribe(2) as stream:
        _fill(log, 2)
        assert [(await anext(stream))["n"] for _ in range(4)] == [2, 3, 4, 5]


async def test_stream_waits_for_the_next_event() -> None:
    log = EventLog()
    got: list[int] = []
    with anyio.fail_after(5), log.subscribe() as stream:
        async with anyio.create_task_group() as group:

            async def read() -> None:
                got.append((await anext(stream))["n"])

            group.start_soon(read)
            await anyio.wait_all_tasks_blocked()
            assert got == []
            _fill(log, 1)
    assert got == [1]


async def test_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    log = EventLog(subscriber_events=2)
    with anyio.fail_after(5), log.subscribe() as slow:
        _fill(log, 5)
        received = [await anext(slow) for _ in range(3)]
    assert received[0] == {"event": "dropped", "count": 3}
    assert [event["n"] for event in received[1:]] == [4, 5]


async def test_ended_stream_is_forgotten() -> None:
    log = EventLog()
    with log.subscribe():
        assert len(log._subscriptions) == 1
    assert log._subscriptions == []
