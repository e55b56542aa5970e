"""The last events, kept for whoever asks later, and streams of the coming ones."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from supervisor.core.events import Event

KEPT_EVENTS = 1000
_SUBSCRIBER_EVENTS = 1000


class Subscription:
    """One reader's events, as JSON-ready values numbered by `n`, oldest first, for ever.

    A reader too slow loses its oldest ones; `{"event": "dropped", "count": N}` then stands in their place.
    """

    def __init__(self, backlog: list[tuple[int, Event]], max_events: int) -> None:
        self._queue: deque[tuple[int, Event]] = deque(backlog[-max_events:], maxlen=max_events)
        self._dropped = 0
        self._waker = anyio.Event()

    def add(self, number: int, event: Event) -> None:
        """Called by the event log; never blocks."""
        if len(self._queue) == self._queue.maxlen:
            self._dropped += 1
        self._queue.append((number, event))
        self._waker.set()

    def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        return self

    async def __anext__(self) -> dict[str, Any]:
        while not self._queue:
            self._waker = anyio.Event()
            await self._waker.wait()
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            return {"event": "dropped", "count": dropped}
        return _as_dict(*self._queue.popleft())


class EventLog:
    """A ring of the last events; `publish` is an event subscriber."""

    def __init__(self, *, kept: int = KEPT_EVENTS, subscriber_events: int = _SUBSCRIBER_EVENTS) -> None:
        self._events: deque[tuple[int, Event]] = deque(maxlen=kept)
        self._subscriber_events = subscriber_events
        self._subscriptions: list[Subscription] = []
        self._number = 0

    def publish(self, event: Event) -> None:
        """Keep an event and hand it to the streams."""
        self._number += 1
        self._events.append((self._number, event))
        for subscription in self._subscriptions:
            subscription.add(self._number, event)

    def tail(self, count: int) -> list[dict[str, Any]]:
        """The last `count` events, oldest first."""
        return [_as_dict(number, event) for number, event in self._last(count)]

    @contextmanager
    def subscribe(self, backlog: int = 0) -> Iterator[Subscription]:
        """A stream that begins with the last `backlog` events and misses none after them."""
        subscription = Subscription(self._last(backlog), self._subscriber_events)
        self._subscriptions.append(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)

    def _last(self, count: int) -> list[tuple[int, Event]]:
        return list(self._events)[-count:] if count > 0 else []


def _as_dict(number: int, event: Event) -> dict[str, Any]:
    return {"n": number, **event.as_dict()}
