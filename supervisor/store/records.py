"""Small JSON records in the state folder: the install (uuid, ports, verified facts) and what was spawned."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

from supervisor.core.errors import ConfigurationError
from supervisor.store.files import write_atomic

INSTALL_FILE = "install.json"
_OWNER = "owner"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass
class Install:
    """What must stay the same over the life of a state folder. `ports` maps a service to its chosen port."""

    uuid: str
    ports: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Whose our things on an engine are: where an older install of this stack was taken back, that one's uuid."""
        return self.facts.get(_OWNER, self.uuid)

    @owner.setter
    def owner(self, uuid: str) -> None:
        self.facts[_OWNER] = uuid

    @classmethod
    def parse(cls, text: str) -> Install:
        """From the record's text. Raises ValueError, KeyError, TypeError or AttributeError for any other."""
        values = json.loads(text)
        if not (isinstance(values["uuid"], str) and values["uuid"]):
            raise ValueError("its uuid is no text")
        return cls(
            uuid=values["uuid"],
            ports={str(name): int(port) for name, port in values.get("ports", {}).items()},
            facts={str(name): str(fact) for name, fact in values.get("facts", {}).items()},
        )


def read_install(state: Path) -> Install | None:
    """The install of a state folder, for those who only look; None where there is none that can be read."""
    try:
        return Install.parse((state / INSTALL_FILE).read_text(encoding="utf-8"))
    except (OSError, *_UNREADABLE):
        return None


class InstallFile:
    """`install.json`: read or made once; every `save` replaces it in one step."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.install = self._load()

    def _load(self) -> Install:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            install = Install(uuid=uuid.uuid4().hex)
            write_atomic(self._path, json.dumps(asdict(install), indent=2))
            return install
        try:
            return Install.parse(text)
        except _UNREADABLE as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ConfigurationError(
                f"cannot read {str(self._path)!r}: {why}; it names this install and the ports it uses: "
                f"restore it from a backup, or move it away to have a new one made"
            ) from error

    def save(self) -> None:
        """Write the record durably."""
        write_atomic(self._path, json.dumps(asdict(self.install), indent=2))


class SpawnFolder:
    """One file for each running child, so that a boot after kill -9 can prove which processes are ours.

    Not fsynced: after a power cut there is nothing to prove, and the boot id says so.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, pid: int, record: dict[str, str | int]) -> None:
        """Write the record of `pid`."""
        write_atomic(self._folder / f"{pid}.json", json.dumps(record), durable=False)

    def remove(self, pid: int) -> None:
        """Forget `pid`."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{pid}.json").unlink()

    def read(self) -> list[dict[str, str | int]]:
        """Every record that can be read; torn or foreign files are no records."""
        records: list[dict[str, str | int]] = []
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                value = json.loads(path.read_text(encoding="utf-8"))
                if isinstance(value, dict):
                    records.append(value)
        return records

    def clear(self) -> None:
        """Forget all."""
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
