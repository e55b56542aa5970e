"""The highest sequence that each key has had accepted here, so that no older release comes back by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from supervisor.releases.manifest import MAX_SEQUENCE
from supervisor.releases.model import ReleaseError
from supervisor.releases.trust import read_small
from supervisor.store.files import write_atomic
from supervisor.store.formats import SEQUENCES, NewerFormat

UNSIGNED = "unsigned"
"""Stands for the key of releases without a signature."""
_MAX_RECORD_BYTES = 1024 * 1024


class Accepted(BaseModel):
    """One acceptance: the sequence, and the SHA-256 (hex) of the manifest that had it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    manifest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    highest: dict[str, dict[str, Accepted]]


@dataclass(frozen=True)
class Sequences:
    """The highest one accepted, by key id (or `UNSIGNED`) and app: what a leaked key used up binds no other key."""

    highest: Mapping[str, Mapping[str, Accepted]] = field(default_factory=dict)

    def of(self, key_id: str, app: str) -> Accepted | None:
        """The highest one of this key for this app."""
        return self.highest.get(key_id, {}).get(app)

    def is_new(self, key_id: str, app: str, candidate: Accepted) -> bool:
        """Whether it is above all that this key had accepted. The same manifest again is: an update may be retried."""
        before = self.of(key_id, app)
        return before is None or candidate.sequence > before.sequence or candidate == before

    def after(self, key_ids: Sequence[str], app: str, accepted: Accepted) -> Sequences:
        """With this acceptance by these keys; none of them becomes lower."""
        raised = {key_id: {**self.highest.get(key_id, {}), app: accepted} for key_id in key_ids}
        kept = {key_id: apps for key_id, apps in raised.items() if self._is_above(key_id, app, accepted)}
        return Sequences({**self.highest, **kept})

    def without(self, key_id: str) -> Sequences:
        """Nothing known of this key any more: all its old releases would be accepted again if it is trusted."""
        return Sequences({known: apps for known, apps in self.highest.items() if known != key_id})

    def _is_above(self, key_id: str, app: str, accepted: Accepted) -> bool:
        before = self.of(key_id, app)
        return before is None or accepted.sequence > before.sequence


class SequenceFile:
    """The record on disk, read anew for each use. Only the holder of the update lock changes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Sequences:
        """Empty where there is none yet. Raises ReleaseError where it cannot be read: nothing is accepted then."""
        if not os.path.lexists(self._path):
            return Sequences()
        try:
            values, _ = SEQUENCES.read(read_small(self._path, _MAX_RECORD_BYTES), self._path)
            return Sequences(_Record.model_validate(values).highest)
        except NewerFormat as error:
            raise ReleaseError(str(error)) from error
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            why = f"{place}: {first['msg']}" if place else first["msg"]
        except ValueError as error:
            why = str(error)
        raise ReleaseError(
            f"cannot read {str(self._path)!r}: {why}; it remembers the newest releases accepted here: restore it from "
            f"a backup, or move it away, and older signed releases can be applied until a newer one has been"
        )

    def accept(self, key_ids: Sequence[str], app: str, accepted: Accepted) -> None:
        """Remember durably; `key_ids` is empty for an unsigned one."""
        self._write(self.read().after(key_ids or (UNSIGNED,), app, accepted))

    def forget(self, key_id: str) -> bool:
        """Drop the record of a key, by a person's command only. False where there is none."""
        known = self.read()
        if key_id not in known.highest:
            return False
        self._write(known.without(key_id))
        return True

    def _write(self, sequences: Sequences) -> None:
        highest = {
            key_id: {app: accepted.model_dump() for app, accepted in sorted(apps.items())}
            for key_id, apps in sorted(sequences.highest.items())
        }
        try:
            write_atomic(self._path, SEQUENCES.text({"highest": highest}))
        except OSError as error:
            raise ReleaseError(
                f"cannot write {str(self._path)!r}: {error.strerror}; make its folder writable, with space, "
                f"for uid {os.geteuid()}"
            ) from error
