"""What a change of a secret means to each server: an app's login, a role with one password, a user of Redis."""

from __future__ import annotations

from collections.abc import Callable

from supervisor.core.secret import Secret
from supervisor.services.tenancy import redis, session
from supervisor.services.tenancy.credential import Credential
from supervisor.services.tenancy.postgres import PostgresTenancy, set_password
from supervisor.services.tenancy.rotation import Lock
from supervisor.services.tenancy.tenant import Wish


def app_login_lock(tenancy: PostgresTenancy, wish: Wish, app: str) -> Lock:
    """An app's way into Postgres; the secrets are texts of `Credential`. Its roles are there: `ensure` was called."""

    def login(kept: Secret) -> tuple[str, Credential]:
        credential = Credential.parse(kept)
        return wish.login(wish.tenant(app), credential.slot), credential

    async def admit(kept: Secret) -> None:
        name, credential = login(kept)
        await tenancy.open_login(name, credential.password)

    async def refuse(kept: Secret) -> None:
        await tenancy.close_login(login(kept)[0])

    async def works(kept: Secret) -> bool:
        _, credential = login(kept)
        return await session.can_log_in(tenancy.url(wish, app, credential.slot, credential.password))

    return Lock(admit=admit, refuse=refuse, works=works)


def role_lock(admin: Callable[[], Secret], role: str) -> Lock:
    """A role that only we log in as: the superuser's, the install's. It has one password, so the old one ends at once.

    `admin` gives a URL that works now, by what is recorded; it may be the role's own.
    """

    async def admit(password: Secret) -> None:
        await set_password(admin(), role, password)

    async def refuse(_: Secret) -> None:
        pass

    async def works(password: Secret) -> bool:
        return await session.can_log_in(session.url_for(admin(), role=role, password=password))

    return Lock(admit=admit, refuse=refuse, works=works, both=False)


def redis_lock(tenancy: redis.RedisTenancy, server: Secret, user: str) -> Lock:
    """A user of Redis, `default` too, which may have several passwords; `server` is any URL of it."""

    async def admit(password: Secret) -> None:
        await tenancy.add_password(user, password)

    async def refuse(password: Secret) -> None:
        await tenancy.drop_password(user, password)

    async def works(password: Secret) -> bool:
        return await redis.can_log_in(redis.url_as(server, user=user, password=password))

    return Lock(admit=admit, refuse=refuse, works=works)
