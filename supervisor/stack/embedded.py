"""The built-in services as child processes (embedded mode).

The servers' own modules are imported when they are used: beside one app alone neither asyncpg nor redis is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from supervisor.core.events import FileKept, Notice, Publish
from supervisor.core.settings import Settings
from supervisor.process.child import RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import ChildBackend
from supervisor.services.embedded.cluster import SUPERUSER
from supervisor.services.ports import RememberedPorts
from supervisor.services.spec import Prepare, ServiceSpec
from supervisor.services.tenancy.rotation import Lock
from supervisor.stack.built_in import BuiltIn, Rotating, Web
from supervisor.state import State
from supervisor.store.files import Generated, Written

if TYPE_CHECKING:
    from supervisor.services.embedded.postgres import EmbeddedPostgres
    from supervisor.services.embedded.redis import EmbeddedRedis


def remembered_ports(state: State, publish: Publish, *, outlived: bool = False) -> RememberedPorts:
    """Loopback ports, the same at each boot. `outlived`: services of ours may have run on without us."""
    return RememberedPorts(
        state.install.ports, save=state.save, say=lambda text: publish(Notice(message=text)), outlived=outlived
    )


def tell_kept(publish: Publish) -> Callable[[Generated], None]:
    """Says which generated files the user has edited."""

    def report(file: Generated) -> None:
        if file.result is Written.KEPT:
            publish(FileKept(path=str(file.path), difference=file.difference))

    return report


class EmbeddedServices:
    """Makes them. `names` are those to run."""

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str],
        names: tuple[str, ...],
        *,
        state: State,
        reaper: Reaper,
        ring: Callable[[str], Ring],
        run_program: RunProgram,
        publish: Publish,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._state = state
        self._reaper = reaper
        self._ring = ring
        self._run_program = run_program
        self._publish = publish
        self._ports = remembered_ports(state, publish)
        self._postgres: EmbeddedPostgres | None = None
        self._redis: EmbeddedRedis | None = None
        self.made = BuiltIn(look_up=self._look_up)
        makers = {"postgres": self._add_postgres, "redis": self._add_redis, "traefik": self._add_traefik}
        for name in names:
            makers[name]()

    def _add(self, spec: ServiceSpec, prepare: Prepare) -> None:
        self.made.add(spec, ChildBackend(spec.name, prepare, reaper=self._reaper, ring=self._ring(spec.name)))

    def _add_postgres(self) -> None:
        from supervisor.services.embedded.postgres import EmbeddedPostgres

        postgres = EmbeddedPostgres(
            self._settings,
            state_dir=self._state.paths.state,
            secrets=self._state.secrets,
            ports=self._ports,
            run=self._run_program,
            environ=self._environ,
        )
        self._postgres = postgres
        self._add(postgres.spec(), postgres.prepare)
        self._look_up()
        self.made.dump_programs = postgres.dump_programs
        self.made.secrets += [postgres.dsn, postgres.admin_dsn]
        self.made.rotating |= {
            "postgres": Rotating(postgres.record, partial(self._role_lock, self._settings.stack)),
            "postgres-superuser": Rotating(postgres.superuser_record, partial(self._role_lock, SUPERUSER)),
        }

    def _role_lock(self, role: str) -> Lock:
        from supervisor.services.tenancy.locks import role_lock

        postgres = self._postgres
        assert postgres is not None
        return role_lock(lambda: postgres.admin_dsn, role)

    def _add_redis(self) -> None:
        from supervisor.services.embedded.redis import EmbeddedRedis

        redis = EmbeddedRedis(
            self._settings,
            state_dir=self._state.paths.state,
            secrets=self._state.secrets,
            ports=self._ports,
            environ=self._environ,
            users=self._redis_users,
        )
        self._redis = redis
        self._add(redis.spec(), redis.prepare)
        self._look_up()
        self.made.secrets.append(redis.url)
        self.made.rotating["redis"] = Rotating(redis.record, partial(self._redis_lock, redis))

    @staticmethod
    def _redis_lock(redis: EmbeddedRedis) -> Lock:
        from supervisor.services.tenancy.locks import redis_lock
        from supervisor.services.tenancy.redis import RedisTenancy

        return redis_lock(RedisTenancy(redis.url), redis.url, "default")

    def _look_up(self) -> None:
        if self._postgres is not None:
            self.made.database_url, self.made.admin_url = self._postgres.dsn, self._postgres.admin_dsn
        if self._redis is not None:
            self.made.redis_url = self._redis.url

    def _redis_users(self) -> tuple[str, ...]:
        from supervisor.services.tenancy.redis_rules import config_lines
        from supervisor.stack.tenants import Kept, keys, redis_wish

        kept = Kept(self._state.paths.state / "secrets")
        return config_lines(redis_wish(keys(self._settings), kept, stack=self._settings.stack))

    def _add_traefik(self) -> None:
        from supervisor.services.embedded.traefik import EmbeddedTraefik

        traefik = EmbeddedTraefik(
            self._settings,
            state_dir=self._state.paths.state,
            ports=self._ports,
            environ=self._environ,
            report=tell_kept(self._publish),
        )
        self._add(traefik.spec(), traefik.prepare)
        entry, host = traefik.entry_ports, self._settings.app_host or "127.0.0.1"
        addresses = {
            "traefik_http": f"http://{host}:{entry.http}",
            "traefik_https": f"https://{host}:{entry.https}",
        }
        self.made.web = Web("127.0.0.1", entry.http, addresses)
