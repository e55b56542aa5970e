"""Small JSON records in the state folder: the install (uuid, ports, verified facts) and what was spawned."""

from __future__ import annotations

import contextlib
import json
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.store.files import keep_copy, write_atomic
from supervisor.store.formats import INSTALL, Kind, Values

INSTALL_FILE = "install.json"
INSTALL_BEFORE = "install.json.1"
"""The record as it was before it was brought to a newer format."""
_OWNER = "owner"
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Verified:
    """A fact that was proved, in words, and when, in UTC."""

    value: str
    at: str


@dataclass
class Install:
    """What must stay the same over the life of a state folder. `ports` maps a service to its chosen port.

    `facts` are remembered for ourselves, `verified` ones are told to who looks; `rest` is what another version wrote
    within this format: each key stands for itself, so it is kept as it is.
    """

    uuid: str
    ports: dict[str, int] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    verified: dict[str, Verified] = field(default_factory=dict)
    rest: Values = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """Whose our things on an engine are: where an older install of this stack was taken back, that one's uuid."""
        return self.facts.get(_OWNER, self.uuid)

    @owner.setter
    def owner(self, uuid: str) -> None:
        self.facts[_OWNER] = uuid

    @classmethod
    def of(cls, values: Values) -> Install:
        """From the record's values. Raises ValueError, KeyError, TypeError or AttributeError for any other."""
        rest = dict(values)
        name = rest.pop("uuid")
        if not (isinstance(name, str) and name):
            raise ValueError("its uuid is no text")
        return cls(
            uuid=name,
            ports={str(name): int(port) for name, port in rest.pop("ports", {}).items()},
            facts={str(name): str(fact) for name, fact in rest.pop("facts", {}).items()},
            verified={str(name): _verified(fact) for name, fact in rest.pop("verified", {}).items()},
            rest=rest,
        )

    def values(self) -> Values:
        """The record's values."""
        values: dict[str, Any] = asdict(self)
        return {**values.pop("rest"), **values}


def _verified(values: dict[str, Any]) -> Verified:
    return Verified(str(values["value"]), str(values["at"]))


def read_install(state: Path) -> Install | None:
    """The install of a state folder, for those who only look; None where there is none that can be read.

    Raises NewerFormat (a ConfigurationError) for one that a newer version wrote: that is not the same as none.
    """
    path = state / INSTALL_FILE
    try:
        return parse_install(path.read_bytes(), path)
    except (OSError, *_UNREADABLE):
        return None


def parse_install(text: str | bytes, place: object) -> Install:
    """From the text of any format known. Raises NewerFormat, and else as `Install.of`."""
    return Install.of(INSTALL.read(text, place)[0])


class InstallFile:
    """`install.json`: read or made once; every `save` replaces it in one step.

    One of an older format is written anew at once, with a copy of it beside; for the holder of the state lock only.
    """

    def __init__(self, path: Path, kind: Kind = INSTALL) -> None:
        self._path = path
        self._kind = kind
        self.install = self._load()

    def _load(self) -> Install:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            self.install = Install(uuid=uuid.uuid4().hex)
            self.save()
            return self.install
        try:
            values, found = self._kind.read(text, self._path)
            self.install = Install.of(values)
        except _UNREADABLE as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else error
            raise ConfigurationError(
                f"cannot read {str(self._path)!r}: {why}; it names this install and the ports it uses: "
                f"restore it from a backup, or move it away to have a new one made"
            ) from error
        if found < self._kind.newest:
            keep_copy(self._path, self._path.with_name(INSTALL_BEFORE))
            self.save()
        return self.install

    def save(self) -> None:
        """Write the record durably."""
        write_atomic(self._path, self._kind.text(self.install.values()))


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
