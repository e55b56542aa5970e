"""Generated secrets: one 0600 file each, made once, never printed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.store.files import write_atomic
from supervisor.store.rotating import RotatingSecret

_BYTES = 32


class SecretFolder:
    """The `secrets/` folder (0700). A secret is written durably before anything uses it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """Where secret `name` is kept."""
        return self._folder / name

    def rotating(self, name: str) -> RotatingSecret:
        """The same, to be changed; made on first use."""
        self.get_or_make(name)
        return RotatingSecret(self._folder, name)

    def get_or_make(self, name: str) -> Secret:
        """The secret `name`; a random one of 32 bytes, url-safe, is made on first use."""
        path = self.path(name)
        try:
            text = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            text = secrets.token_urlsafe(_BYTES)
            write_atomic(path, text + "\n")
            return Secret(text)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigurationError(
                f"cannot read secret {str(path)!r}: {why}; restore it from a backup, readable for uid {os.geteuid()}"
            ) from error
        if not text:
            raise ConfigurationError(
                f"cannot use secret {str(path)!r}: it is empty; restore it from a backup (a new one would not open the "
                f"existing data), or remove it where there is no data yet"
            )
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
        return Secret(text)
