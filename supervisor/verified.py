"""Remembers in the install's record what a run has proved of its surroundings, and when. Wiring.

For who looks without a supervisor, and for other machines: nothing of it is believed by a run, which looks itself.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import suppress

from supervisor.core.events import BootFinished, Event, ModeChosen, ServiceChanged, ServiceState, SupervisorStarted
from supervisor.store.records import Verified


class VerifiedFacts:
    """Subscribe `observe` to the bus. `save` makes `verified` durable: once for a boot, then for each change after it.

    What cannot be written is written with the next one, as it is of no use to the run itself.
    """

    def __init__(self, verified: MutableMapping[str, Verified], save: Callable[[], None]) -> None:
        self._verified = verified
        self._save = save
        self._booted = False

    def observe(self, event: Event) -> None:
        """Blocks for some milliseconds where it writes (fsync)."""
        proved = _proved(event)
        at = event.at.isoformat(timespec="seconds").replace("+00:00", "Z")
        self._verified.update({name: Verified(value, at) for name, value in proved.items() if value})
        ended = isinstance(event, BootFinished)
        self._booted |= ended
        if ended or (proved and self._booted):
            with suppress(OSError):
                self._save()


def _proved(event: Event) -> dict[str, str]:
    match event:
        case SupervisorStarted(version=version):
            return {"supervisor": version}
        case ModeChosen(mode=mode, owner=owner, engine=engine):
            return {"mode": f"{mode} ({owner})" if owner else mode, "engine": engine}
        case ServiceChanged(service=service, state=ServiceState.RUNNING, reason=reason):
            return {f"service.{service}": reason or "running"}
        case _:
            return {}
