"""The folder that a release is written to: one build at a time, and nothing half-written under its own name."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from supervisor.releases.build.compress import SUFFIX
from supervisor.releases.model import ReleaseError
from supervisor.store.files import sync_folder, write_atomic

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
SCRIPT = "deploy-tarball.sh"
_IGNORE = ".gitignore"
_ENDS = (*SUFFIX.values(), MANIFEST, SIGNATURE, SCRIPT, _IGNORE)


class Output:
    """The folder, held. Made by `open_output` only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def new_archive(self, name: str) -> Iterator[BinaryIO]:
        """A file that stands under `name`, durable, when the block ends well, and is gone when it does not."""
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), 0o644)
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(self.folder / name)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise

    def describe(self, manifest: bytes, signature: bytes | None, script: str) -> None:
        """What stands beside the archive. The signature of an older manifest goes first: it would not fit the new."""
        (self.folder / SIGNATURE).unlink(missing_ok=True)
        write_atomic(self.folder / MANIFEST, manifest.decode(), mode=0o644)
        if signature is not None:
            write_atomic(self.folder / SIGNATURE, signature.decode(), mode=0o644)
        write_atomic(self.folder / SCRIPT, script, mode=0o755)
        sync_folder(self.folder)


@contextmanager
def open_output(folder: Path) -> Iterator[Output]:
    """Make the folder where it is missing and hold it. A new or empty one gets a `.gitignore`; in others that would
    hide files that are not ours. Raises ReleaseError, also for every OSError of what is written within."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _hold(descriptor, folder)
            _drop_temporaries(folder)
            if not os.listdir(folder):
                write_atomic(folder / _IGNORE, "*\n", mode=0o644, durable=False)
            yield Output(folder)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ReleaseError(
            f"cannot write to {str(folder)!r}: {error.strerror}; make it a folder that uid {os.geteuid()} may "
            f"write to, on a disk with room, or name another with --output"
        ) from error


def _hold(descriptor: int, folder: Path) -> None:
    """For as long as the descriptor is open; the kernel lets go when its holder dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ReleaseError(
            f"cannot write to {str(folder)!r}: another build is writing there; wait for its end, or name another "
            f"folder with --output"
        ) from None


def _drop_temporaries(folder: Path) -> None:
    """What a build that was killed left. By our own endings: the folder may be one with other things in it."""
    for end in _ENDS:
        for left in folder.glob(f".*{end}.*.tmp"):
            left.unlink(missing_ok=True)
