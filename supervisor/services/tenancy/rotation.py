"""Changing a secret that a server knows: recorded first, proved before it is used, and finished after any kill.

| step     | done in it                                              | a kill after it: at the next start              |
|----------|---------------------------------------------------------|-------------------------------------------------|
| RECORDED | the new one is durably in NAME.next                     | server does not know it: dropped, the old stays |
| OPENED   | the server takes the new one (beside the old, or alone) | the new one is good: promoted, the old closed   |
| PROVED   | a login with it has succeeded                           | the same                                        |
| PROMOTED | NAME is the new one, NAME.next gone                     | the app starts with it, the old one is closed   |
| ADOPTED  | the app runs with it                                    | the same                                        |
| CLOSED   | old generations have ended, the server refuses the old  | nothing is left to do                           |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import anyio

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.secret import Secret

_UNDO_SECONDS = 20.0


class Step(StrEnum):
    """What has been done, in this order."""

    RECORDED = "recorded"
    OPENED = "opened"
    PROVED = "proved"
    PROMOTED = "promoted"
    ADOPTED = "adopted by the app"
    CLOSED = "closed"


class Record(Protocol):
    """Where the two are kept; see `RotatingSecret`. Each method is durable when it returns."""

    def current(self) -> Secret | None: ...

    def next(self) -> Secret | None: ...

    def put_current(self, secret: Secret) -> None: ...

    def put_next(self, secret: Secret) -> None: ...

    def promote(self) -> None: ...

    def drop_next(self) -> None: ...


Act = Callable[[Secret], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Lock:
    """What a server has for it. All may be called again after they were done.

    `admit` makes the server take this one; `refuse` makes it take it no more; `works` is a login with it: False only
    where the server itself says no. `both`: old and new are good together; else `admit` ends the old one.
    """

    admit: Act
    refuse: Act
    works: Callable[[Secret], Awaitable[bool]]
    both: bool = True


class Settled(StrEnum):
    """What a start finds of a change that was under way."""

    NOTHING = "nothing"
    FINISH = "finish"
    DROP = "drop"
    LOST = "lost"


def settle(*, pending: bool, next_works: bool, current_works: bool) -> Settled:
    """Which of the two is true: the next one where the server takes it, else the one before."""
    if not pending:
        return Settled.NOTHING
    if next_works:
        return Settled.FINISH
    return Settled.DROP if current_works else Settled.LOST


async def rotate(
    record: Record,
    lock: Lock,
    new: Secret,
    *,
    adopt: Callable[[], Awaitable[None]],
    reached: Callable[[Step], None] = lambda _: None,
) -> None:
    """Change the recorded secret to `new`; `adopt` has the app run with what is recorded, and its old generation ended.

    Call `recover` first: what an earlier change left is settled there. Where a step fails or is cancelled, the old one
    is in use again, as far as the server takes it; that error is raised. A kill after PROMOTED leaves the old one good:
    what sets the server up at a start (`ensure`, with what is recorded) closes it.
    """
    old = record.current()
    record.put_next(new)
    reached(Step.RECORDED)
    try:
        await lock.admit(new)
        reached(Step.OPENED)
        if not await lock.works(new):
            raise ConfigurationError("cannot change the secret: the server was told the new one and refuses it")
        reached(Step.PROVED)
        record.promote()
        reached(Step.PROMOTED)
        await adopt()
        reached(Step.ADOPTED)
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(_UNDO_SECONDS):
            await _go_back(record, lock, old, new)
        raise
    if old is not None and lock.both:
        await lock.refuse(old)
    reached(Step.CLOSED)


async def _go_back(record: Record, lock: Lock, old: Secret | None, new: Secret) -> None:
    """The app's old generation runs on with the old one, which nothing has closed yet."""
    if old is None:
        return
    if not lock.both:
        # One secret only: the server has the one or the other, and what it has is what must be recorded.
        with suppress(SupervisorError):  # it gives no answer now: the next start asks it again
            await recover(record, lock)
        return
    if record.next() is None:
        record.put_current(old)
    record.drop_next()
    with suppress(SupervisorError):  # nobody has it, and the next change or start closes it
        await lock.refuse(new)


async def recover(record: Record, lock: Lock) -> Settled:
    """Settle what a kill left, before anything uses the secret; gives what was found.

    Raises ConfigurationError where the server takes neither, what the lock raises where it gives no answer.
    """
    pending, current = record.next(), record.current()
    next_works = pending is not None and await lock.works(pending)
    current_works = not next_works and current is not None and pending is not None and await lock.works(current)
    found = settle(pending=pending is not None, next_works=next_works, current_works=current_works)
    match found:
        case Settled.FINISH:
            record.promote()
            if current is not None and lock.both:
                await lock.refuse(current)
        case Settled.DROP:
            record.drop_next()
        case Settled.LOST:
            raise ConfigurationError(
                "cannot settle a change of a secret that was cut off: the server takes neither the old nor the new; "
                "set it anew by hand in the server, or take the service over with SUPERVISOR_ADOPT=1"
            )
        case Settled.NOTHING:
            pass
    return found
