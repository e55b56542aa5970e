"""Redis as a Swarm service of ours: its wish, its address, its probe."""

from __future__ import annotations

from urllib.parse import quote

from supervisor.core.errors import SupervisorError
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.redis import probe_redis
from supervisor.probe.verdict import Verdict, waiting
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm import roles
from supervisor.services.swarm.data import Hands, Reach, data_spec, unnamed
from supervisor.services.swarm.first import FirstPassword
from supervisor.services.swarm.spec import ServiceBody, service_body
from supervisor.store.secrets import SecretFolder

NAME = "redis"
SECRET = "redis"  # noqa: S105  (the name of a file)


class EngineRedis:
    """The Redis of the stack; nothing is done before `wish`.

    The password comes with each start of the server; where it was changed since, it is set by the probe.
    """

    def __init__(self, settings: Settings, *, hands: Hands, secrets: SecretFolder, reach: Reach) -> None:
        self._settings = settings
        self._hands = hands
        self._secrets = secrets
        self._reach = reach

    @property
    def service(self) -> str:
        """Its name on the engine."""
        return f"{self._settings.stack}-redis"

    @property
    def url(self) -> Secret:
        """The app's URL. Makes the password on first use."""
        return self._url_with(self._secrets.get_or_make(SECRET))

    @property
    def first(self) -> FirstPassword:
        """Its password, to be changed."""
        return FirstPassword(self._secrets, SECRET)

    def _url_with(self, secret: Secret) -> Secret:
        password = quote(secret.reveal(), safe="")
        return Secret(f"redis://:{password}@{self._reach.host}:{self._reach.port}/0")

    def spec(self, *, deadline_factor: float, requires: tuple[str, ...]) -> ServiceSpec:
        """What the orchestrator must know of it."""
        return data_spec(
            NAME,
            self._settings,
            self.probe,
            stop_seconds=roles.REDIS_STOP_SECONDS,
            deadline_factor=deadline_factor,
            requires=requires,
        )

    async def wish(self) -> ServiceBody:
        """The service as it shall be."""
        hands = self._hands
        place = await hands.place()
        image = await hands.images.find(NAME, hands.memory.image_wanted(NAME, self._settings.redis_image))
        text = roles.redis_config(self.first.given().reveal())
        service = roles.redis_service(
            owner=hands.owner(),
            place=place,
            image=image.pinned,
            config=await hands.keep_secret(NAME, roles.REDIS_CONFIG_FILE, text.encode()),
            limits=roles.Limits(limit_mib=self._settings.redis_memory_mib),
            volume=hands.memory.volume(NAME),
        )
        return service_body(service, api=await hands.api_version())

    async def probe(self) -> Verdict:
        """One probe with the app's own password."""
        if (not_yet := await unnamed(self._reach)) is not None:
            return not_yet
        hint = f"what answers there was started with another one: remove service {self.service!r}, its volume stays"

        async def ask(password: Secret) -> Verdict:
            limit = self._settings.watch_timeout_seconds
            return await probe_redis(self._url_with(password), limit_seconds=limit, password_hint=hint)

        try:
            return await self.first.probe(ask, self._tell)
        except SupervisorError as error:
            return waiting(str(error))

    async def _tell(self, first: Secret, current: Secret) -> None:
        """It was started again, with the password of its configuration."""
        await self._only(current, knowing=first)

    async def close_others(self) -> None:
        """Where the password was ever changed: no other than the one in use is good. Redis is ready."""
        if self.first.was_changed:
            current = self._secrets.get_or_make(SECRET)
            await self._only(current, knowing=current)

    async def _only(self, password: Secret, *, knowing: Secret) -> None:
        from supervisor.services.tenancy.redis import RedisTenancy

        await RedisTenancy(self._url_with(knowing)).set_only_password("default", password)
