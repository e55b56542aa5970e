"""The table of names that have a value with nothing declared, and the facts that values are made of. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.core.secret import Secret
from supervisor.core.settings import FIELD, SECRET

WELL_KNOWN: Mapping[str, str] = {
    "PORT": "{port}",
    "NODE_ENV": "{node_env}",
    "DATABASE_URL": "{database_url}",
    "REDIS_URL": "{redis_url}",
    "PUBLIC_URL": "{public_url}",
    "TRUSTED_ORIGINS": "{trusted_origins}",
    "BETTER_AUTH_URL": "{public_url}",
    "BETTER_AUTH_SECRET": SECRET,
    "BETTER_AUTH_TRUSTED_ORIGINS": "{trusted_origins}",
    "MASTER_KEY": SECRET,
}
"""Templates by name. `MASTER_KEY` is for apps that decrypt what they keep while they run.

A settings file may add names and change these: `[bindings]`.
"""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What an app's values are made of. `origins` are the public URLs of the apps beside it."""

    stage: str
    port: int
    public_url: str
    origins: tuple[str, ...] = ()
    database_url: Secret | None = None
    redis_url: Secret | None = None

    def fields(self) -> dict[str, str]:
        """By their names in templates; what there is none of is left out."""
        found = {
            "stage": self.stage,
            # Libraries know these three; anything else is a kind of production to them.
            "node_env": self.stage if self.stage in ("development", "test") else "production",
            "port": str(self.port),
            "public_url": self.public_url,
            "trusted_origins": ",".join(dict.fromkeys([self.public_url, *self.origins])),
        }
        for name, url in (("database_url", self.database_url), ("redis_url", self.redis_url)):
            if url is not None:
                found[name] = url.reveal()
        return found


def filled(template: str, facts: Facts) -> str | None:
    """The value of a template; None where one of its facts is missing here."""
    fields = facts.fields()
    names = FIELD.findall(template)
    return None if any(name not in fields for name in names) else FIELD.sub(lambda one: fields[one[1]], template)
