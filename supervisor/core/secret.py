"""A string that does not print itself, so that a stray log line or traceback cannot leak it."""

from __future__ import annotations


class Secret:
    """Wraps a secret; `str`, `repr` and `format` give `***`, only `reveal` gives the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: for a connection, a child's environment or a 0600 file, nothing else."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)
