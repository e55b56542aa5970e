"""A secret while it is being changed: the one in use, and beside it the next, until that one is proved."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.core.secret import Secret
from supervisor.store.files import sync_folder, write_atomic

NEXT = ".next"


class RotatingSecret:
    """Secret `name` of a `secrets/` folder, its successor in `NAME.next`; each 0600, each step durable when it returns.

    Whatever moment a kill comes at, `current` is there whole, and so is `next` or none. `ending` stands behind each
    value in its file.
    """

    def __init__(self, folder: Path, name: str, *, ending: str = "\n") -> None:
        self._ending = ending
        self._current = folder / name
        self._next = folder / f"{name}{NEXT}"

    def current(self) -> Secret | None:
        """The one in use; None before the first."""
        return _read(self._current)

    def next(self) -> Secret | None:
        """The one that a change under way is to bring."""
        return _read(self._next)

    def put_current(self, secret: Secret) -> None:
        """Make it the one in use."""
        write_atomic(self._current, secret.reveal() + self._ending)

    def put_next(self, secret: Secret) -> None:
        """Record it before anybody else gets it."""
        write_atomic(self._next, secret.reveal() + self._ending)

    def promote(self) -> None:
        """The next one is from now on the one in use; nothing where there is none, as when it was done already."""
        with suppress(FileNotFoundError):
            self._next.replace(self._current)
            sync_folder(self._current.parent)

    def drop_next(self) -> None:
        """Forget the next one: it never came into use."""
        self._next.unlink(missing_ok=True)
        sync_folder(self._current.parent)

    def forget(self) -> None:
        """There is none any more."""
        self._current.unlink(missing_ok=True)
        self.drop_next()


def _read(path: Path) -> Secret | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigurationError(f"cannot read secret {str(path)!r}: {why}; restore it from a backup") from error
    if not text:
        raise ConfigurationError(f"cannot use secret {str(path)!r}: it is empty; restore it from a backup")
    return Secret(text)
