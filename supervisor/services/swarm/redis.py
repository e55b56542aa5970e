"""Redis as a Swarm service of ours: its wish, its address, its probe."""

from __future__ import annotations

from urllib.parse import quote

from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.redis import probe_redis
from supervisor.probe.verdict import Verdict
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm import roles
from supervisor.services.swarm.data import Hands, Reach, data_spec, unnamed
from supervisor.services.swarm.spec import ServiceBody, service_body
from supervisor.store.secrets import SecretFolder

NAME = "redis"
SECRET = "redis"  # noqa: S105  (the name of a file)


class EngineRedis:
    """The Redis of the stack; nothing is done before `wish`. Its password comes with each start: none is ever reset."""

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
        password = quote(self._secrets.get_or_make(SECRET).reveal(), safe="")
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
        text = roles.redis_config(self._secrets.get_or_make(SECRET).reveal())
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
        return await probe_redis(self.url, limit_seconds=self._settings.watch_timeout_seconds, password_hint=hint)
