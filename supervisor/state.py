"""Opens the state and runtime folders: who we are on this machine, and what an earlier run left. Wiring."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from supervisor.core.errors import ConfigurationError, SupervisorError
from supervisor.core.settings import Settings
from supervisor.process.leftovers import SpawnRecord
from supervisor.process.reaper import SpawnLog
from supervisor.store.app_secrets import drop_half_written_secrets
from supervisor.store.files import StateLock, drop_half_written, make_folder
from supervisor.store.records import INSTALL_FILE, Install, InstallFile, SpawnFolder
from supervisor.store.secrets import SecretFolder
from supervisor.store.transfer.place import finish

_MAX_SOCKET_PATH = 107
_SPAWN_FIELDS = frozenset(field.name for field in fields(SpawnRecord))


@dataclass(frozen=True)
class Paths:
    """Where things are kept."""

    state: Path
    runtime: Path
    socket: Path

    @classmethod
    def of(cls, settings: Settings, environ: dict[str, str]) -> Paths:
        """Resolve the folders from the settings, the user and XDG."""
        root = os.geteuid() == 0
        home = Path(environ.get("HOME") or "/tmp")  # noqa: S108
        state_home = Path(environ.get("XDG_STATE_HOME") or home / ".local/state")
        state = settings.state_dir or (Path("/var/lib/supervisor") if root else state_home / "supervisor")
        runtime_home = environ.get("XDG_RUNTIME_DIR")
        if settings.runtime_dir is not None:
            runtime = settings.runtime_dir
        elif root:
            runtime = Path("/run/supervisor")
        else:
            runtime = Path(runtime_home) / "supervisor" if runtime_home else state / "run"
        state, runtime = state.absolute(), runtime.absolute()
        return cls(state, runtime, (settings.socket or runtime / "control.sock").absolute())


class SpawnRecords(SpawnLog):
    """Writes spawns down in a folder; see `SpawnRecord`."""

    def __init__(self, folder: SpawnFolder) -> None:
        self._folder = folder

    def spawned(self, record: SpawnRecord) -> None:
        """Write it."""
        self._folder.write(record.pid, asdict(record))

    def reaped(self, pid: int) -> None:
        """Forget it."""
        self._folder.remove(pid)

    def earlier(self) -> list[SpawnRecord]:
        """What an earlier supervisor wrote."""
        records: list[SpawnRecord] = []
        for values in self._folder.read():
            # What another version knew besides does not keep us from ending what it left.
            known = {name: value for name, value in values.items() if name in _SPAWN_FIELDS}
            try:
                records.append(SpawnRecord(**known))  # type: ignore[arg-type]
            except TypeError:
                continue
        return records

    def clear(self) -> None:
        """Forget all."""
        self._folder.clear()


class State:
    """The opened state folder, locked for us until the process ends. Raises our errors, naming folder and mend."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        if len(str(paths.socket).encode()) > _MAX_SOCKET_PATH:
            raise ConfigurationError(
                f"cannot use socket {str(paths.socket)!r}: its path has more than {_MAX_SOCKET_PATH} bytes; "
                f"set SUPERVISOR_SOCKET or SUPERVISOR_RUNTIME_DIR to a shorter one"
            )
        make_folder(paths.state, mode=0o711)
        make_folder(paths.runtime, mode=0o711)
        self._lock = StateLock(paths.state / "lock")
        try:
            self._lock.take()
            finish(paths.state)
            self._install_file = InstallFile(paths.state / INSTALL_FILE)
        except OSError as error:
            raise SupervisorError(f"cannot use state folder {str(paths.state)!r}: {error.strerror}") from error
        for folder in (paths.state, paths.state / "secrets", paths.state / "spawned"):
            drop_half_written(folder)
        drop_half_written_secrets(paths.state / "secrets")
        make_folder(paths.state / "secrets", mode=0o700)
        make_folder(paths.state / "spawned", mode=0o700)
        self.secrets = SecretFolder(paths.state / "secrets")
        self.spawned = SpawnRecords(SpawnFolder(paths.state / "spawned"))

    @property
    def install(self) -> Install:
        """The install's record."""
        return self._install_file.install

    def save(self) -> None:
        """Write the install's record."""
        self._install_file.save()
