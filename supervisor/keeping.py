"""What the control API may ask about secrets and the apps' places in the services. Wiring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervisor.core.errors import RejectedError
from supervisor.core.events import Publish
from supervisor.core.requests import Outcome, Request, Verb
from supervisor.parts import Parts
from supervisor.rotations import Rotations, Turn

if TYPE_CHECKING:
    from supervisor.stack.tenants import DatabasePlaces


class Keeper:
    """See `triggers.keeping.Keeping`."""

    def __init__(self, parts: Parts, turn: Turn, publish: Publish) -> None:
        self._parts = parts
        self._turn = turn
        self._rotations = Rotations(parts, turn, publish)

    async def rotate(self, name: str) -> Outcome:
        """See `Rotations`."""
        return await self._rotations.rotate(name)

    async def plan(self, *, hand_over: bool, confirm: bool) -> dict[str, Any]:
        """Reads only."""
        from supervisor.services.tenancy.script import describe, psql_script

        places = self._databases()
        wish = places.wish()
        plan = await places.tenancy.plan(wish, hand_over=hand_over, confirm=confirm)
        return {"lines": list(describe(plan)), "sql": psql_script(plan, database=wish.database)}

    async def apply(self, *, hand_over: bool, confirm: bool) -> dict[str, Any]:
        """In a turn of the controller: a reload meanwhile would see half of it."""
        from supervisor.services.tenancy.script import describe

        lines: list[str] = []

        async def work() -> None:
            if (places := self._parts.places.databases) is not None:
                lines.extend(describe(await places.tenancy.ensure(places.wish(), hand_over=hand_over, confirm=confirm)))
            if (redis := self._parts.places.redis) is not None:
                lines.extend(await redis.tenancy.ensure(redis.wish()))

        self._require_places()
        await self._turn(Request(Verb.RELOAD, "tenancy"), work)
        await self.verify()
        return {"lines": lines}

    async def verify(self) -> dict[str, Any]:
        """Raises ConfigurationError with every right that is not as declared."""
        from supervisor.services.tenancy.redis import verify_redis
        from supervisor.services.tenancy.verify import verify_postgres

        self._require_places()
        apps: set[str] = set()
        if (places := self._parts.places.databases) is not None:
            await verify_postgres(places.admin, places.wish())
            apps |= {tenant.app for tenant in places.wish().tenants}
        if (redis := self._parts.places.redis) is not None:
            await verify_redis(redis.admin, redis.wish())
            apps |= {keys.app for keys in redis.wish().apps}
        return {"lines": [f"app {app!r} may do what is declared, and no more" for app in sorted(apps)]}

    def _require_places(self) -> None:
        if not self._parts.places.exist:
            raise RejectedError(
                "cannot see to the apps' places: there are none, as one app alone has everything, and what is external "
                "is shared as it is; declare [apps.NAME] tables in supervisor.toml"
            )

    def _databases(self) -> DatabasePlaces:
        self._require_places()
        if self._parts.places.databases is None:
            raise RejectedError("cannot plan the apps' places in Postgres: no Postgres of ours runs here")
        return self._parts.places.databases
