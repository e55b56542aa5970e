"""The variables of every app, looked up in what this supervisor was given, knows and keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.secret import Secret
from supervisor.core.settings import AppEnv, Loaded, Settings
from supervisor.environment.bindings import WELL_KNOWN, Facts
from supervisor.environment.resolve import Resolved, Wanted, resolve
from supervisor.planning.environment import read_env_file
from supervisor.services.traefik_files import ANY_HOST, routed_host
from supervisor.stack.built_in import Web
from supervisor.store.app_secrets import AppSecrets

_NOT_MADE = Secret("-" * 43)


@dataclass(frozen=True, kw_only=True)
class AppVariables:
    """`database_url` and `redis_url` give an app's own; `register` is told each secret that is found. With `make`, what
    is to be made is made and kept; without it nothing is changed, and a text of the same length stands in for it.
    """

    environ: Mapping[str, str]
    secrets_folder: Path
    database_url: Callable[[str], Secret | None]
    redis_url: Callable[[str], Secret | None]
    web: Web | None = None
    make: bool = True
    register: Callable[[Secret], None] = lambda secret: None

    def of(self, app: str, loaded: Loaded) -> Resolved:
        """Those of one app, by its own settings. Raises ConfigurationError for files that cannot be read."""
        settings = loaded.settings
        kept = AppSecrets(self.secrets_folder, app)
        wanted = Wanted(
            app=app,
            declared=declared(settings, app),
            facts=self._facts(app, settings, loaded.general or settings),
            bindings={**WELL_KNOWN, **settings.bindings},
            external=self.given(app, loaded),
            given=kept.given(),
        )
        found = resolve(wanted, kept.make if self.make else lambda name: kept.made().get(name) or _NOT_MADE)
        ours = (value.secret for value in found.values.values() if value.is_secret)
        # Also of a reload: from then on they are masked wherever an app prints them.
        for secret in (*loaded.fetched.values(), *loaded.env_files.values(), *ours):
            self.register(secret)
        return found

    def _facts(self, app: str, settings: Settings, general: Settings) -> Facts:
        names = [name for name in general.app_names if name != app]
        return Facts(
            stage=settings.stage,
            port=settings.port,
            public_url=self._public_url(app, general),
            origins=tuple(self._public_url(name, general) for name in names),
            database_url=self.database_url(app),
            redis_url=self.redis_url(app),
        )

    def _public_url(self, app: str, settings: Settings) -> str:
        """Where people reach it: through the proxy by its host, else on its own port."""
        host = routed_host(settings, app) if self.web is not None else None
        if self.web is None or host in (None, ANY_HOST):
            return f"http://localhost:{settings.ports_of_apps.get(app, settings.port)}"
        secure = settings.acme_email is not None or settings.tls_cert_file is not None
        address = self.web.addresses["traefik_https" if secure else "traefik_http"]
        port = address.rsplit(":", 1)[1]
        scheme = "https" if secure else "http"
        return f"{scheme}://{host}" if port == {"https": "443", "http": "80"}[scheme] else f"{scheme}://{host}:{port}"

    def given(self, app: str, loaded: Loaded) -> dict[str, str]:
        """All that was said for the app, without what only others declare; see `Loaded.app_values`.

        Where the stack has a database or Redis of its own, files do not name another; an app that declares to have none
        gets none. PORT is the setting of the first app, at most.
        """
        settings = loaded.settings
        from_file = read_env_file(settings.env_file) if settings.env_file is not None else {}
        hidden = {"PORT", *names_of_others(settings, app), *_renounced(settings, app)}
        for name, url in (("DATABASE_URL", self.database_url(app)), ("REDIS_URL", self.redis_url(app))):
            if url is not None and not self.environ.get(name):
                hidden.add(name)
        values = loaded.app_values(from_file, self.environ)
        return {name: value for name, value in values.items() if name not in hidden}


def declared(settings: Settings, app: str) -> AppEnv:
    """What the app's table says that it needs; nothing where there is none."""
    return settings.apps[app].env if app in settings.apps else AppEnv()


def _renounced(settings: Settings, app: str) -> set[str]:
    """URLs of what the app's table says it has not."""
    if app not in settings.apps:
        return set()
    table = settings.apps[app]
    return {name for name, place in (("DATABASE_URL", table.database), ("REDIS_URL", table.redis)) if place is None}


def names_of_others(settings: Settings, app: str) -> frozenset[str]:
    """Variables that apps beside this one declare, and this one does not: they are none of its business."""

    def names(one: str) -> set[str]:
        env = declared(settings, one)
        return {*env.needed, *env.optional}

    others = {name for other in settings.apps if other != app for name in names(other)}
    return frozenset(others - names(app))
