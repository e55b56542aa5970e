"""The built-in services on an engine: which are made, and how each is reached from where we are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from supervisor.core.errors import SupervisorError, UnreachableError
from supervisor.core.events import Publish
from supervisor.core.mode import Where
from supervisor.core.secret import Secret
from supervisor.core.settings import Settings
from supervisor.process.child import RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.container import plan as container_plan
from supervisor.services.container.driver import ContainerDriver
from supervisor.services.container.traefik import HTTP_PORT, HTTPS_PORT, PING_PORT, EngineTraefik, TraefikReach
from supervisor.services.engine_backend import Driver, EngineBackend
from supervisor.services.ownership.passwords import reset_postgres_password
from supervisor.services.spec import ServiceSpec
from supervisor.services.swarm import roles
from supervisor.services.swarm.data import Hands, Reach
from supervisor.services.swarm.driver import SwarmDriver, Wish
from supervisor.services.swarm.postgres import EnginePostgres
from supervisor.services.swarm.reconcile import Create, Keep, Plan, Update
from supervisor.services.swarm.redis import EngineRedis
from supervisor.services.tenancy.rotation import Lock
from supervisor.stack.built_in import BuiltIn, Rotating, Web
from supervisor.stack.embedded import remembered_ports, tell_kept
from supervisor.stack.engine import EngineStack
from supervisor.stack.placement import Placement
from supervisor.state import State

_LOOPBACK = "127.0.0.1"


class EngineServices:
    """Makes them; nothing is asked of the engine before they are started."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        placement: Placement,
        *,
        state: State,
        reaper: Reaper,
        ring: Callable[[str], Ring],
        run_program: RunProgram,
        publish: Publish,
        on_failure: Callable[[SupervisorError], None],
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._placement = placement
        self._state = state
        self._ring = ring
        self._publish = publish
        self._ports = remembered_ports(state, publish, outlived=placement.traits.data_outlives_stop)
        self.stack = EngineStack(
            settings,
            environ,
            placement,
            state=state,
            reaper=reaper,
            ring=ring("dockerd"),
            run_program=run_program,
            publish=publish,
            on_failure=on_failure,
        )
        self._look_ups: list[Callable[[], None]] = []
        self.made = BuiltIn(look_up=self._look_up)
        if self.stack.dockerd is not None:
            self.made.add(self.stack.dockerd_spec(), self.stack.dockerd)
        self._reaches = {name: self._reach_of(name) for name in ("postgres", "redis") if name in placement.services}
        self._hands = Hands(
            owner=lambda: self.stack.tenure.owner,
            place=self._place,
            images=self.stack.images,
            keep_secret=self.stack.tenure.keep_secret,
            api_version=self.stack.engine.api_version,
            memory=self.stack.memory,
        )
        makers = {"postgres": self._add_postgres, "redis": self._add_redis, "traefik": self._add_traefik}
        for name in placement.services:
            makers[name]()

    @property
    def _here(self) -> bool:
        """Whether the engine publishes ports in our own network namespace."""
        return self._placement.traits.ports is Where.HERE

    def _reach_of(self, name: str) -> Reach:
        """Here by a port that only loopback reaches, elsewhere by name on the stack's network."""
        inside = {"postgres": roles.POSTGRES_PORT, "redis": roles.REDIS_PORT}[name]
        if not self._here:
            return Reach(host=f"{self._settings.stack}-{name}", port=inside)
        wanted = {"postgres": self._settings.postgres_port, "redis": self._settings.redis_port}[name]
        port = self._ports.port(name, wanted)
        self.stack.closed_ports += (port,)
        return Reach(host=_LOOPBACK, port=port, published=port)

    async def _place(self) -> roles.Place:
        ground = await self.stack.ground()
        published = {name: reach.published for name, reach in self._reaches.items()}
        return roles.Place(
            node=ground.membership.node_id,
            network=ground.network.id,
            postgres_port=published.get("postgres"),
            redis_port=published.get("redis"),
        )

    def _add_postgres(self) -> None:
        postgres = EnginePostgres(
            self._settings,
            hands=self._hands,
            secrets=self._state.secrets,
            reach=self._reaches["postgres"],
            set_password=self._set_postgres_password,
        )
        spec = postgres.spec(deadline_factor=self._deadline_factor, requires=self.stack.required)
        self._postgres = self._add(spec, self._swarm_driver(postgres.service, postgres.wish))
        self._look_ups.append(partial(self._look_up_postgres, postgres))
        self._look_up_postgres(postgres)
        self.made.rotating["postgres"] = Rotating(postgres.first.record, partial(self._postgres_lock, postgres))
        self.made.dump_programs = lambda _: postgres.dump_programs(
            self.stack.engine,
            lambda: self._postgres.container,
            limit_seconds=self._settings.release_snapshot_seconds,
        )
        self.made.secrets.append(postgres.dsn)

    async def _set_postgres_password(self, password: Secret) -> None:
        container = self._postgres.container
        if container is None:
            raise UnreachableError("cannot set the password of Postgres: its container does not run yet; wait for it")
        stack = self._settings.stack
        await reset_postgres_password(self.stack.engine, container, role=stack, database=stack, password=password)
        self.stack.warn(f"the password of Postgres' role {stack!r} was set anew: the one before it is no longer valid")

    def _add_redis(self) -> None:
        redis = EngineRedis(
            self._settings, hands=self._hands, secrets=self._state.secrets, reach=self._reaches["redis"]
        )
        spec = redis.spec(deadline_factor=self._deadline_factor, requires=self.stack.required)
        self._add(spec, self._swarm_driver(redis.service, redis.wish))
        self._look_ups.append(partial(self._look_up_redis, redis))
        self._look_up_redis(redis)
        self.made.secrets.append(redis.url)
        self.made.rotating["redis"] = Rotating(
            redis.first.record, partial(self._redis_lock, redis), close=redis.close_others
        )

    def _look_up(self) -> None:
        for look_up in self._look_ups:
            look_up()

    def _look_up_postgres(self, postgres: EnginePostgres) -> None:
        self.made.database_url = self.made.admin_url = postgres.dsn  # what the image makes is a superuser

    def _look_up_redis(self, redis: EngineRedis) -> None:
        self.made.redis_url = redis.url

    def _postgres_lock(self, postgres: EnginePostgres) -> Lock:
        from supervisor.services.tenancy.locks import role_lock

        return postgres.first.lock(role_lock(lambda: postgres.dsn, self._settings.stack))

    @staticmethod
    def _redis_lock(redis: EngineRedis) -> Lock:
        from supervisor.services.tenancy.locks import redis_lock
        from supervisor.services.tenancy.redis import RedisTenancy

        return redis.first.lock(redis_lock(RedisTenancy(redis.url), redis.url, "default"))

    @property
    def _deadline_factor(self) -> float:
        return self._placement.traits.deadline_factor

    def _swarm_driver(self, name: str, wish: Wish) -> SwarmDriver:
        hub = self.stack.hub
        return SwarmDriver(
            name,
            wish,
            self.stack.engine,
            report=self._report,
            adopt=self.stack.tenure.adopts,
            engine_started=lambda: hub.engine_started,
        )

    def _add(self, spec: ServiceSpec, driver: Driver) -> EngineBackend:
        backend = EngineBackend(driver, self.stack.engine, self._ring(spec.name), when_up=self.stack.hub.wait_up)
        self.stack.backends.append(backend)
        self.made.add(spec, backend)
        return backend

    def _report(self, name: str, plan: Plan) -> None:
        match plan:
            case Create():
                self.stack.tell(f"creating service {name!r}")
            case Update(changes=changes, restarts=restarts):
                how = "its task is replaced" if restarts else "its task goes on"
                self.stack.tell(f"updating service {name!r}, {how}: {'; '.join(changes)}")
            case Keep(foreign=foreign) if foreign:
                self.stack.warn(f"service {name!r} was changed by somebody else, which stays: {'; '.join(foreign)}")

    def _add_traefik(self) -> None:
        settings, stack = self._settings, self.stack
        reach = self._traefik_reach()
        traefik = EngineTraefik(
            settings,
            folder=settings.traefik_dir or Path("/etc") / settings.stack / "traefik",
            engine=stack.engine,
            owner=lambda: stack.tenure.owner,
            reach=reach,
            resolve=self._traefik_image,
            network=self._network,
            environ=self._environ,
            report=tell_kept(self._publish),
            tell=stack.tell,
        )
        driver = ContainerDriver(
            traefik.container,
            traefik.wish,
            stack.engine,
            fill=partial(self._fill_traefik, traefik),
            report=self._report_container,
        )
        spec = traefik.spec(deadline_factor=self._deadline_factor, requires=stack.required)
        backend = self._add(spec, driver)
        stack.background.append(partial(traefik.watch, lambda: backend.container))
        self.made.web = Web(reach.web_host, reach.web_port, self._web_addresses())

    async def _fill_traefik(self, traefik: EngineTraefik, container: str) -> None:
        await traefik.fill(container)
        rescued = self.stack.tenure.rescued_certificates
        if rescued.exists():
            await traefik.give_certificates(container, rescued.read_bytes())
            rescued.unlink()

    def _traefik_reach(self) -> TraefikReach:
        settings = self._settings
        if not self._here:
            name = f"{settings.stack}-traefik"
            return TraefikReach(
                app_address=self.stack.alias,
                ping_base=f"http://{name}:{PING_PORT}",
                web_host=name,
                web_port=HTTP_PORT,
            )
        ping_port = self._ports.port("traefik-ping", 0)
        return TraefikReach(
            app_address="host.docker.internal",
            hosts={"host.docker.internal": "host-gateway"},
            ping_host_port=ping_port,
            ping_base=f"http://{_LOOPBACK}:{ping_port}",
            web_host=_LOOPBACK,
            web_port=settings.http_port or HTTP_PORT,
        )

    def _web_addresses(self) -> dict[str, str]:
        """Where people reach the proxy: on the machine that publishes its ports."""
        settings = self._settings
        host = settings.app_host or ("127.0.0.1" if self._here else "HOST")
        return {
            "traefik_http": f"http://{host}:{settings.http_port or HTTP_PORT}",
            "traefik_https": f"https://{host}:{settings.https_port or HTTPS_PORT}",
        }

    async def _traefik_image(self) -> str:
        return (await self.stack.images.find("traefik", self._settings.traefik_image)).pinned

    async def _network(self) -> tuple[str, str]:
        network = (await self.stack.ground()).network
        return network.name, network.id

    def _report_container(self, name: str, plan: container_plan.Plan) -> None:
        match plan:
            case container_plan.Create():
                self.stack.tell(f"creating container {name!r}")
            case container_plan.Start():
                self.stack.tell(f"starting container {name!r}")
            case container_plan.Recreate():
                self.stack.warn(
                    f"container {name!r} differs from what it shall be: making it anew, which cuts requests"
                )
