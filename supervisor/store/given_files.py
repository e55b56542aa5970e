"""Secrets that an app reads from files: in the runtime folder, readable for its user alone."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

from supervisor.core.errors import TransientError
from supervisor.core.secret import Secret
from supervisor.store.files import make_folder, write_atomic


class GivenFiles:
    """Files in `folder`/APP, named by variable and content: code that still runs keeps the ones it was given."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Remove what an earlier run left; blocks."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def path(self, app: str, name: str, secret: Secret) -> Path:
        """Where that value is, once it is written."""
        return self._folder / app / f"{name}-{hashlib.sha256(secret.reveal().encode()).hexdigest()[:12]}"

    def write(self, files: Mapping[Path, Secret], owner: tuple[int, int] | None) -> None:
        """Those that are not there yet. Raises TransientError where the disk does not take one, our errors."""
        for path, secret in files.items():
            try:
                if not path.exists():
                    self._write(path, secret, owner)
            except OSError as error:
                raise TransientError(
                    f"cannot give an app the file {str(path)!r}: {error.strerror}; make room in the runtime folder, or "
                    f"give the variable in the environment"
                ) from error

    def _write(self, path: Path, secret: Secret, owner: tuple[int, int] | None) -> None:
        make_folder(self._folder, mode=0o711)
        make_folder(path.parent, mode=0o700, owner=owner)
        write_atomic(path, secret.reveal(), mode=0o400, durable=False, owner=owner)
