"""The password a service of the engine was made with: it stays in the service's Swarm secret when it is changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from supervisor.core.secret import Secret
from supervisor.probe.verdict import Answer, Verdict
from supervisor.services.changing import probe_changing
from supervisor.services.tenancy.rotation import Lock
from supervisor.store.rotating import RotatingSecret
from supervisor.store.secrets import SecretFolder

Ask = Callable[[Secret], Awaitable[Verdict]]


class FirstPassword:
    """Of secret `name`, kept in `NAME.first` from its first change on.

    A Swarm secret cannot be changed, and a service that is given another one is started anew. Postgres reads it for an
    empty volume only, Redis at each start: both are told the one in use as soon as they are found with the first.
    """

    def __init__(self, secrets: SecretFolder, name: str) -> None:
        self.record = secrets.rotating(name)
        path = secrets.path(name)
        self._first = RotatingSecret(path.parent, f"{path.name}.first")

    def given(self) -> Secret:
        """What the service is given."""
        return self._first.current() or self._current()

    @property
    def was_changed(self) -> bool:
        """Whether the one in use may be another than the service was made with."""
        return self._first.current() is not None

    def lock(self, lock: Lock) -> Lock:
        """`lock`, which first keeps what the service was made with."""

        async def admit(new: Secret) -> None:
            if self._first.current() is None:
                self._first.put_current(self._current())
            await lock.admit(new)

        return replace(lock, admit=admit)

    async def probe(self, ask: Ask, tell: Callable[[Secret, Secret], Awaitable[None]]) -> Verdict:
        """`ask` with the password in use; a server that only knows the first is told: `tell(first, current)`."""
        verdict = await probe_changing(self.record, ask)
        first = self._first.current()
        if verdict.answer is not Answer.FATAL or first is None or not (await ask(first)).good:
            return verdict
        await tell(first, self._current())
        return await ask(self._current())

    def _current(self) -> Secret:
        current = self.record.current()
        assert current is not None, "made with the record"
        return current
