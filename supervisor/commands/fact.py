"""One fact of the preflight."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Grade(StrEnum):
    """How a fact stands to a run; only `failed` makes it impossible."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Fact:
    """What was looked at, what was found, and what to do about it where something is to be done."""

    name: str
    grade: Grade
    found: str
    mend: str = ""

    @classmethod
    def ok(cls, name: str, found: str) -> Fact:
        """As it should be."""
        return cls(name, Grade.OK, found)

    @classmethod
    def note(cls, name: str, found: str, mend: str = "") -> Fact:
        """Good to know."""
        return cls(name, Grade.NOTE, found, mend)

    @classmethod
    def warning(cls, name: str, found: str, mend: str) -> Fact:
        """A run works, but not as well as it could."""
        return cls(name, Grade.WARNING, found, mend)

    @classmethod
    def failed(cls, name: str, found: str, mend: str) -> Fact:
        """A run cannot work."""
        return cls(name, Grade.FAILED, found, mend)

    def as_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return {"fact": self.name, "grade": self.grade.value, "found": self.found, "mend": self.mend}
