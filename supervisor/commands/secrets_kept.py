"""The secrets of an install as they lie in its state folder: names and times, one value on demand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.core.settings import did_you_mean
from supervisor.services.tenancy.credential import Credential
from supervisor.store.app_secrets import AppSecrets, apps_with_secrets
from supervisor.store.rotating import NEXT, RotatingSecret

_EMBEDDED = ("postgres", "postgres-app")
"""Postgres beside us keeps its password in a file of another name than one on an engine."""


@dataclass(frozen=True, kw_only=True)
class KeptSecret:
    """One of them, without its value. `kind`: install, login, made or given; `pending`: a change of it is under way."""

    name: str
    app: str | None = None
    kind: str
    changed: str
    pending: bool
    path: Path = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {key: value for key, value in asdict(self).items() if key != "path"}


class Secrets:
    """Those of the state folder `state`. Raises ConfigurationError where it cannot be read."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self.folder = state / "secrets"

    def all(self) -> list[KeptSecret]:
        """The install's, then each app's."""
        try:
            found = list(self._found())
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the secrets in {str(self.folder)!r}: {error.strerror}; run this as the user the "
                f"supervisor runs as (we are uid {os.geteuid()}), with its SUPERVISOR_STATE_DIR"
            ) from error
        return found

    def find(self, name: str) -> KeptSecret:
        """The one in use of that name. Raises ConfigurationError saying which there are."""
        known = {secret.name: secret for secret in self.all()}
        if name not in known:
            raise ConfigurationError(
                f"cannot find secret {name!r}: there is none{did_you_mean(name, list(known))}; "
                f"known: {', '.join(known) or 'none yet'}"
            )
        return known[name]

    def value(self, name: str) -> Secret:
        """One value; of a login the password. Raises as `find` does."""
        secret = self.find(name)
        if secret.app is not None and secret.kind in ("made", "given"):
            kept = AppSecrets(self.folder, secret.app)
            return (kept.made() if secret.kind == "made" else kept.given())[secret.path.name]
        value = RotatingSecret(secret.path.parent, secret.path.name).current()
        assert value is not None
        return Credential.parse(value).password if secret.path.name == "database" else value

    def _found(self) -> Iterator[KeptSecret]:
        for name in ("postgres", "postgres-superuser", "redis"):
            path = self._path_of(name)
            if path.exists():
                yield _described(name, None, "install", path)
        for app in apps_with_secrets(self.folder):
            for kind in ("login", "made", "given"):
                folder = self.folder / "apps" / app / kind
                for path in sorted(folder.iterdir()) if folder.is_dir() else []:
                    if not path.name.startswith(".") and not path.name.endswith(NEXT):
                        yield _described(f"{app}/{path.name}", app, kind, path)

    def _path_of(self, name: str) -> Path:
        shown, embedded = _EMBEDDED
        of_ours = (self._state / "postgres" / "data").exists()
        return self.folder / (embedded if name == shown and of_ours else name)


def _described(name: str, app: str | None, kind: str, path: Path) -> KeptSecret:
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    pending = path.with_name(f"{path.name}{NEXT}").exists()
    return KeptSecret(name=name, app=app, kind=kind, changed=changed, pending=pending, path=path)
