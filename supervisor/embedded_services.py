"""The built-in services as child processes (embedded mode). Wiring.

The servers' own modules are imported when they are used: beside one app alone neither asyncpg nor redis is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.built_in import BuiltIn, Web
from supervisor.core.events import FileKept, Notice, Publish
from supervisor.core.settings import Settings
from supervisor.process.child import RunProgram
from supervisor.process.output import Ring
from supervisor.process.reaper import Reaper
from supervisor.services.backend import ChildBackend
from supervisor.services.ports import RememberedPorts
from supervisor.services.spec import Prepare, ServiceSpec
from supervisor.state import State
from supervisor.store.files import Generated, Written


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
        self.made = BuiltIn()
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
        self._add(postgres.spec(), postgres.prepare)
        self.made.database_url = postgres.dsn
        self.made.dump_programs = postgres.dump_programs
        self.made.admin_url = postgres.admin_dsn
        self.made.secrets += [postgres.dsn, postgres.admin_dsn]

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
        self._add(redis.spec(), redis.prepare)
        self.made.redis_url = redis.url
        self.made.secrets.append(redis.url)

    def _redis_users(self) -> tuple[str, ...]:
        from supervisor.services.tenancy.redis_rules import config_lines
        from supervisor.tenants import Kept, keys, redis_wish

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
