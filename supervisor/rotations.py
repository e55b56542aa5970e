"""Changes secrets while the stack serves, each in a turn of the controller, without a failed request. Wiring."""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

from supervisor.core.errors import RejectedError, RolledBackError, SupervisorError
from supervisor.core.events import Publish, SecretRotated
from supervisor.core.requests import Outcome, Request, Result, Verb, result_of
from supervisor.core.secret import Secret
from supervisor.core.settings import did_you_mean
from supervisor.environment.resolve import Origin
from supervisor.parts import Parts
from supervisor.planning.part import AppPart
from supervisor.services.tenancy.rotation import Lock, Record, Step, recover, rotate
from supervisor.store.app_secrets import AppSecrets

Turn = Callable[[Request, Callable[[], Awaitable[None]]], Awaitable[None]]
INSTALL = ("postgres", "postgres-superuser", "redis")
_BYTES = 32


class Rotations:
    """`turn` gives a turn of the controller; `reached` is told each step."""

    def __init__(
        self, parts: Parts, turn: Turn, publish: Publish, *, reached: Callable[[Step], None] = lambda _: None
    ) -> None:
        self._parts = parts
        self._turn = turn
        self._publish = publish
        self._on_reached = reached
        self._phases: dict[str, float] = {}
        self._since = 0.0

    async def rotate(self, name: str) -> Outcome:
        """Change the secret `name`; where that fails the old one is in use again. Cancelling does not take it back."""
        began = time.monotonic()
        result, reason, phases = Result.OK, "", dict[str, float]()

        async def work() -> None:
            self._phases, self._since = phases, time.monotonic()
            await self._rotate(name)

        try:
            await self._turn(Request(Verb.RELOAD, "rotation", name), work)
        except SupervisorError as error:
            result, reason = result_of(error), str(error)
        elapsed = round(time.monotonic() - began, 3)
        self._publish(SecretRotated(secret=name, result=result, reason=reason, elapsed_seconds=elapsed, phases=phases))
        return Outcome(result=result, reason=reason, elapsed_seconds=elapsed, phases=phases)

    def _reached(self, step: Step) -> None:
        now = time.monotonic()
        self._phases[step] = round(now - self._since, 3)
        self._since = now
        self._on_reached(step)

    async def _rotate(self, name: str) -> None:
        owner, slash, what = name.partition("/")
        if not slash:
            await self._of_install(name)
            return
        part = self._parts.apps.get(owner)
        if part is None:
            known = list(self._parts.apps)
            raise RejectedError(
                f"cannot rotate {name!r}: no such app{did_you_mean(owner, known)}; known: {', '.join(known)}"
            )
        kinds = {"database": self._database, "redis": self._redis}
        await kinds.get(what, partial(self._made, what=what))(part)

    async def _database(self, part: AppPart) -> None:
        places = self._parts.places.databases
        if places is None or not places.has(part.name):
            raise RejectedError(
                f"cannot rotate '{part.name}/database': the app has no login of its own; rotate 'postgres', or where "
                f"DATABASE_URL was given to us, change it there"
            )
        record, lock = places.kept.database(part.name), places.lock(part.name)
        await recover(record, lock)
        new = places.kept.credential(part.name).successor()
        self._parts.register_secret(new.password)
        await self._with_app(part, record, lock, new.text())

    async def _redis(self, part: AppPart) -> None:
        places = self._parts.places.redis
        if places is None or not places.has(part.name):
            raise RejectedError(
                f"cannot rotate '{part.name}/redis': the app has no user of its own; rotate 'redis', or where "
                f"REDIS_URL was given to us, change it there"
            )
        record, lock = places.kept.redis(part.name), places.lock(part.name)
        await recover(record, lock)
        await self._with_app(part, record, lock, self._new())

    async def _made(self, part: AppPart, what: str) -> None:
        value = part.plan.variables.values.get(what)
        if value is None or value.origin is not Origin.GENERATED:
            why = "the app has no such variable" if value is None else f"it is {value.origin}"
            raise RejectedError(
                f"cannot rotate '{part.name}/{what}': {why}, and only what is generated can be rotated; give another "
                f"value with `supervisor secrets set {part.name} {what}`"
            )
        record = AppSecrets(self._parts.secrets_folder, part.name).changing(what)
        await self._with_app(part, record, _NO_SERVER, self._new())

    async def _of_install(self, name: str) -> None:
        rotating = self._parts.catalog.rotating.get(name)
        if rotating is None:
            raise RejectedError(f"cannot rotate {name!r}: {self._why_not(name)}")
        if (services := list(self._parts.settings.user_services)) and name != "postgres-superuser":
            raise RejectedError(
                f"cannot rotate {name!r}: the services {', '.join(services)} of supervisor.toml were given it when "
                f"they were started; give them a login of their own, and take them out for the time of the rotation"
            )
        alone = self._parts.first if not self._parts.settings.apps else None
        if name == "postgres" and alone is not None:
            await self._own_login(alone)
        await recover(rotating.record, rotating.lock())
        if name == "redis" and alone is not None:
            await self._with_app(alone, rotating.record, rotating.lock(), self._new())
        else:
            await rotate(rotating.record, rotating.lock(), self._new(), adopt=self._look_up, reached=self._reached)

    def _why_not(self, name: str) -> str:
        if name not in INSTALL:
            return f"no such secret{did_you_mean(name, INSTALL)}; see `supervisor secrets list`"
        return "no such service runs here; what DATABASE_URL or REDIS_URL give us is changed where it was made"

    async def _own_login(self, part: AppPart) -> None:
        """The role of the install has one password, so the app is first moved to a login that can take turns."""
        if self._parts.places.databases is not None:
            await self._database(part)
            return
        self._parts.places.give_own_login()
        places, before = self._parts.places.databases, part.app.spec
        assert places is not None
        try:
            self._parts.register_secret(places.kept.credential(part.name).password)
            await places.settle()
            await self._adopt(part)
        except SupervisorError:
            self._parts.places.take_own_login()
            places.kept.database(part.name).forget()
            if part.app.spec is not before:
                await self._start_again(part, "the app does not start with a login of its own")
            raise
        await part.app.alone()

    async def _look_up(self) -> None:
        """Nothing that runs has it but ourselves; what is planned from now on has the new one."""
        self._parts.places.look_up()
        for part in self._parts.apps.values():
            part.plan = part.plan_in(part.plan.home)

    async def _with_app(self, part: AppPart, record: Record, lock: Lock, new: Secret) -> None:
        before, old = part.app.spec, record.current()

        async def refuse(one: Secret) -> None:
            # Not in `adopt`: a stop that comes while the old generations finish must not take the new one back.
            if one == old:
                await part.app.alone()
            await lock.refuse(one)

        try:
            await rotate(
                record, replace(lock, refuse=refuse), new, adopt=partial(self._adopt, part), reached=self._reached
            )
        except SupervisorError as error:
            self._parts.places.look_up()
            if part.app.spec is not before:
                await self._start_again(part, str(error))
            raise

    async def _adopt(self, part: AppPart) -> None:
        """New requests go to a generation that runs with what is kept now."""
        self._parts.places.look_up()
        plan = part.plan_in(part.plan.home)
        if part.app.is_stopped:
            part.app.spec = plan.spec
        else:
            await part.app.reload(plan.spec)
        part.plan = plan

    async def _start_again(self, part: AppPart, why: str) -> None:
        """One came after the other, and the new one does not serve: the one before is started again."""
        part.plan = part.plan_in(part.plan.home)
        try:
            await part.app.reload(part.plan.spec)
        except SupervisorError as error:
            raise RolledBackError(f"{why}; with the old one it does not start either: {error}") from error
        raise RolledBackError(why)

    def _new(self) -> Secret:
        made = Secret(secrets.token_urlsafe(_BYTES))
        self._parts.register_secret(made)
        return made


async def _nothing(_: Secret) -> None:
    pass


async def _good(_: Secret) -> bool:
    return True


_NO_SERVER = Lock(admit=_nothing, refuse=_nothing, works=_good)
"""Of a made variable: nobody but the app knows it."""
