"""The transaction in hand, written down as it goes, so that a boot after a kill knows what to finish or undo."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum

from supervisor.releases.layout import Layout
from supervisor.store.files import sync_folder, write_atomic


class Mark(StrEnum):
    """How far it came, on the disk."""

    BEGUN = "begun"
    VERIFIED = "verified"
    STAGED = "staged"
    SNAPSHOT = "snapshot"
    EXPANDED = "expanded"
    TRYING = "trying"
    ROLLING_BACK = "rolling back"


class Action(StrEnum):
    """What is done."""

    APPLY = "apply"
    ROLL_BACK = "roll back"
    IMAGE = "use the image's"
    CONTRACT = "contract"


@dataclass(frozen=True, kw_only=True)
class Journal:
    """`transaction` names its folders; `release` is empty until it is known. `actor` is who asked (`api uid 0`).

    `started` is in UTC; `phases` are seconds by name; `schema` is that of the release's migrations, as in `Known`.
    """

    transaction: str
    action: Action
    mark: Mark
    actor: str
    started: str
    release: str = ""
    before: str = ""
    digest: str = ""
    key: str = ""
    schema: tuple[int, int] = (0, 0)
    phases: dict[str, float] = field(default_factory=dict)

    def at(self, mark: Mark) -> Journal:
        """The same, further on."""
        return replace(self, mark=mark)


class JournalFile:
    """`journal.json`: one transaction, or none. Methods block for some milliseconds (fsync)."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.journal

    def read(self) -> Journal | None:
        """None where no transaction is in hand, or where its record cannot be read: then there is nothing to finish,
        as the state alone says what is active.
        """
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            level, lowest = values.pop("schema", (0, 0))
            values |= {"action": Action(values["action"]), "mark": Mark(values["mark"])}
            return Journal(**values, schema=(level, lowest))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write(self, journal: Journal) -> None:
        """Durable once it returns. Raises OSError."""
        write_atomic(self._path, json.dumps(asdict(journal), indent=2) + "\n")

    def remove(self) -> None:
        """The transaction is over."""
        self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)
