"""The formats of our JSON records, all in one place: what each has been, and the steps from one format to the next.

Within a format keys may be added that a version which does not know them can leave as they are. What an older version
must not pass over needs the next format: that one refuses it then, and names the way out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.core.errors import ConfigurationError

Values = dict[str, Any]
Step = Callable[[Values], Values]
"""Makes a record of format N one of N + 1; pure. Raises KeyError, TypeError, AttributeError or ValueError for none."""
_KEY = "format"


class NewerFormat(ConfigurationError):
    """A record of a format that this version does not know: a copy of before it must not be used in its place."""

    def __init__(self, place: object, found: int, known: int) -> None:
        super().__init__(
            f"cannot use {str(place)!r}: it was written by a newer version (format {found}, this one knows {known}); "
            f"update the supervisor, or restore the folder from a backup of before"
        )


@dataclass(frozen=True)
class Kind:
    """One kind of record; `steps[0]` makes format 2 of format 1."""

    steps: tuple[Step, ...] = ()

    @property
    def newest(self) -> int:
        """The format that is written."""
        return len(self.steps) + 1

    def read(self, text: str | bytes, place: object) -> tuple[Values, int]:
        """The values in the newest format, and the format they were in; a record without one is of format 1.

        Raises NewerFormat naming `place`, and else ValueError, KeyError, TypeError or AttributeError.
        """
        try:
            values = json.loads(text)
        except RecursionError:
            raise ValueError("it is nested too deep") from None
        if not isinstance(values, dict):
            raise ValueError("it is no record")
        found = values.pop(_KEY, 1)
        if type(found) is not int or found < 1:
            raise ValueError(f"its format is {found!r}, which is no number from 1 on")
        if found > self.newest:
            raise NewerFormat(place, found, self.newest)
        for step in self.steps[found - 1 :]:
            values = step(values)
        return values, found

    def text(self, values: Mapping[str, Any], *, sort_keys: bool = False) -> str:
        """The text of a record in the newest format."""
        return json.dumps({_KEY: self.newest, **values}, indent=2, sort_keys=sort_keys) + "\n"


def _with_level(values: Values) -> Values:
    """Up to format 1 the database's level was the highest of the releases that were still remembered."""
    levels = [tuple(release["schema"]) for release in values["releases"].values()]
    return {**values, "schema": list(max(levels, default=(0, 0)))}


INSTALL = Kind()
"""`install.json`"""
RELEASES = Kind((_with_level,))
"""`releases/APP/state.json`"""
SEQUENCES = Kind()
"""`releases/APP/sequences.json`"""
EXPORT = Kind()
"""What is within the file of `supervisor state export`."""
# `spawned/*.json`, `journal.json`, `image.json` and `snapshot.json` have no format: they are of one run or one update,
# and one that cannot be read is as good as none.
