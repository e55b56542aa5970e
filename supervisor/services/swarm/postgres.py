"""Postgres as a Swarm service of ours: its wish, its address, its probe."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from supervisor.core.errors import SupervisorError
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.probe.postgres import probe_postgres
from supervisor.probe.verdict import Verdict, waiting
from supervisor.services.dump.container import ContainerPrograms, DumpEngine
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm import roles
from supervisor.services.swarm.data import Hands, Reach, data_spec, unnamed
from supervisor.services.swarm.first import FirstPassword
from supervisor.services.swarm.spec import ServiceBody, service_body
from supervisor.store.secrets import SecretFolder

NAME = "postgres"
SECRET = "postgres"  # noqa: S105  (the name of a file)

SetPassword = Callable[[Secret], Awaitable[None]]
"""Sets the role's password inside the running server, through its local superuser."""


class EnginePostgres:
    """The Postgres of the stack; nothing is done before `wish`.

    Where the data was made with another password (its secret was lost, or it was somebody else's), that is remembered,
    and the password is set anew as soon as the server lets us.
    """

    def __init__(
        self, settings: Settings, *, hands: Hands, secrets: SecretFolder, reach: Reach, set_password: SetPassword
    ) -> None:
        self._settings = settings
        self._hands = hands
        self._secrets = secrets
        self._reach = reach
        self._set_password = set_password
        self._image_major = 0

    @property
    def service(self) -> str:
        """Its name on the engine."""
        return f"{self._settings.stack}-postgres"

    @property
    def dsn(self) -> Secret:
        """The app's own URL: its role, its database. Makes the password on first use."""
        return self._dsn_with(self._password)

    def _dsn_with(self, password: Secret) -> Secret:
        name = quote(self._settings.stack, safe="")
        word = quote(password.reveal(), safe="")
        return Secret(f"postgresql://{name}:{word}@{self._reach.host}:{self._reach.port}/{name}")

    @property
    def first(self) -> FirstPassword:
        """Its password, to be changed."""
        return FirstPassword(self._secrets, SECRET)

    @property
    def _password(self) -> Secret:
        return self._secrets.get_or_make(SECRET)

    def dump_programs(
        self, engine: DumpEngine, container: Callable[[], str | None], *, limit_seconds: float
    ) -> ContainerPrograms:
        """pg_dump and pg_restore in the container that serves."""
        return ContainerPrograms(
            engine=engine,
            container=container,
            role=self._settings.stack,
            password=self._password,
            limit_seconds=limit_seconds,
        )

    def spec(self, *, deadline_factor: float, requires: tuple[str, ...]) -> ServiceSpec:
        """What the orchestrator must know of it."""
        return data_spec(
            NAME,
            self._settings,
            self.probe,
            stop_seconds=roles.POSTGRES_STOP_SECONDS,
            deadline_factor=deadline_factor,
            requires=requires,
        )

    async def wish(self) -> ServiceBody:
        """The service as it shall be. Raises ConfigurationError for an image that cannot open the data there is."""
        hands = self._hands
        place = await hands.place()
        image = await hands.images.find(NAME, hands.memory.image_wanted(NAME, self._settings.postgres_image))
        self._image_major = roles.image_major(image.env, image.tag)
        roles.check_major(self._image_major, hands.memory.postgres_major)
        secret = await hands.keep_secret(NAME, roles.POSTGRES_SECRET_FILE, self.first.given().reveal().encode())
        service = roles.postgres_service(
            owner=hands.owner(),
            place=place,
            image=image.pinned,
            major=self._image_major,
            password=secret,
            limits=roles.Limits(limit_mib=self._settings.postgres_memory_mib),
            volume=hands.memory.volume(NAME),
        )
        return service_body(service, api=await hands.api_version())

    async def probe(self) -> Verdict:
        """One probe with the app's own credentials and database."""
        memory = self._hands.memory
        if memory.password_is_due:
            try:
                await self._set_password(self._password)
            except SupervisorError as error:
                return waiting(str(error))
            memory.password_was_set()
        if (not_yet := await unnamed(self._reach)) is not None:
            return not_yet
        stack = self._settings.stack
        hint = (
            f"the volume of service {self.service!r} holds another password than "
            f"{str(self._secrets.path(SECRET))!r}, or was made for another SUPERVISOR_STACK: bring that file back from "
            f"a backup, or have the password of role {stack!r} set anew with SUPERVISOR_ADOPT=1"
        )

        async def ask(password: Secret) -> Verdict:
            limit = self._settings.watch_timeout_seconds
            return await probe_postgres(self._dsn_with(password), limit_seconds=limit, password_hint=hint)

        try:
            verdict = await self.first.probe(ask, self._tell)
        except SupervisorError as error:
            return waiting(str(error))
        if verdict.good and self._image_major:
            memory.keep_postgres_major(self._image_major)
        return verdict

    async def _tell(self, _: Secret, current: Secret) -> None:
        """The volume was made anew, with the password of the service."""
        await self._set_password(current)
