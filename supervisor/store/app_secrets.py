"""An app's own secrets: those the user has set, and those that were made for it. One 0600 file each."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.store.files import drop_half_written, make_folder, write_atomic
from supervisor.store.rotating import NEXT, RotatingSecret

MAX_BYTES = 64 * 1024
_BYTES = 32
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}")
_APP = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")


class AppSecrets:
    """The folder `secrets/apps/APP` (0700), made with its first secret. Methods block for some milliseconds.

    Values are kept to the byte, with newlines (PEM). Raises ConfigurationError for names and values that cannot be,
    and for files that cannot be read.
    """

    def __init__(self, secrets_folder: Path, app: str) -> None:
        if _APP.fullmatch(app) is None:
            raise ConfigurationError(f"cannot keep secrets of app {app!r}: that is no name of an app")
        self._folder = secrets_folder / "apps" / app

    def given(self) -> dict[str, Secret]:
        """What the user has set, by name."""
        return self._read_all("given")

    def made(self) -> dict[str, Secret]:
        """What was made so far, by name."""
        return self._read_all("made")

    def make(self, name: str) -> Secret:
        """The random value of `name`; one of 32 bytes, url-safe, is made on first use."""
        path = self._path("made", name)
        if path.exists():
            return _read(path)
        return self.renew(name)

    def renew(self, name: str) -> Secret:
        """Another random value for `name`; durable once it returns."""
        value = Secret(secrets.token_urlsafe(_BYTES))
        self._write("made", name, value)
        return value

    def changing(self, name: str) -> RotatingSecret:
        """What was made for `name`, to be changed."""
        path = self._path("made", name)
        return RotatingSecret(path.parent, path.name, ending="")

    def drop_pending(self) -> None:
        """Forget changes of made values that were cut off: nobody has got those yet."""
        for path in (self._folder / "made").glob(f"*{NEXT}"):
            RotatingSecret(path.parent, path.name.removesuffix(NEXT)).drop_next()

    def set(self, name: str, value: Secret) -> None:
        """Keep what the user gives."""
        self.check(name, value)
        self._write("given", name, value)

    @staticmethod
    def check(name: str, value: Secret) -> None:
        """Raises ConfigurationError where that cannot be kept."""
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"cannot keep {name!r}: a variable's name is of letters, digits and underscores")
        text = value.reveal()
        if not text:
            raise ConfigurationError(f"cannot set {name}: the value is empty; unset it with `supervisor secrets unset`")
        if "\0" in text or len(text.encode()) > MAX_BYTES:
            raise ConfigurationError(f"cannot set {name}: a value is text of at most {MAX_BYTES} bytes, without NUL")

    def unset(self, name: str) -> bool:
        """Forget what the user gave; False where there was nothing."""
        path = self._path("given", name)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def has_login(self, service: str) -> bool:
        """Whether it was given one of its own."""
        return (self._folder / "login" / service).exists()

    def login(self, service: str) -> RotatingSecret:
        """How the app gets into a service of the stack."""
        folder = self._folder / "login"
        for each in (self._folder.parent, self._folder, folder):
            make_folder(each)
        return RotatingSecret(folder, service)

    def _path(self, kind: str, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise ConfigurationError(f"cannot keep {name!r}: a variable's name is of letters, digits and underscores")
        return self._folder / kind / name

    def _write(self, kind: str, name: str, value: Secret) -> None:
        path = self._path(kind, name)
        for folder in (self._folder.parent, self._folder, path.parent):
            make_folder(folder)
        try:
            write_atomic(path, value.reveal())
        except OSError as error:
            raise ConfigurationError(f"cannot write secret {str(path)!r}: {error.strerror}; make room there") from error

    def _read_all(self, kind: str) -> dict[str, Secret]:
        folder = self._folder / kind
        try:
            names = sorted(path.name for path in folder.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise _unreadable(folder, error) from error
        return {name: _read(folder / name) for name in names}


def apps_with_secrets(secrets_folder: Path) -> list[str]:
    """The apps that have any."""
    try:
        return sorted(path.name for path in (secrets_folder / "apps").iterdir() if _APP.fullmatch(path.name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(secrets_folder / "apps", error) from error


def drop_half_written_secrets(secrets_folder: Path) -> None:
    """Remove what kills left; for the holder of the state lock only."""
    for folder in (secrets_folder / "apps").glob("*/*"):
        drop_half_written(folder)


def _read(path: Path) -> Secret:
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode()
        if path.stat().st_mode & 0o077:
            path.chmod(0o600)
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    if not text:
        raise ConfigurationError(f"cannot use secret {str(path)!r}: it is empty; restore it, or remove the file")
    return Secret(text)


def _unreadable(path: Path, error: OSError | UnicodeDecodeError) -> ConfigurationError:
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return ConfigurationError(
        f"cannot read secret {str(path)!r}: {why}; restore it from a backup, readable for uid {os.geteuid()}"
    )
