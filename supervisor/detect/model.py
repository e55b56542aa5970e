"""The words of detection: reads, runs of the app, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.errors import ConfigurationError
from supervisor.process.jail import UNKNOWN, Contained

Plain = str | int | float | bool


class DetectionError(ConfigurationError):
    """The app cannot be run at all, so nothing can be said of it."""


class Reader(StrEnum):
    """Whose code asked for the variable, at the innermost frame."""

    APP = "app"
    LIBRARY = "library"
    RUNTIME = "runtime"


class Kind(StrEnum):
    """What a value is, as `[apps.NAME.env.vars.X] kind` has it."""

    TEXT = "text"
    URL = "url"
    PORT = "port"
    INT = "int"
    BOOL = "bool"
    EMAIL = "email"


class Ending(StrEnum):
    """How a run of the app came to its end."""

    EXITED = "exited"
    QUIET = "quiet"
    """It runs on and has read nothing for a while: a server. We ended it."""
    BUSY = "busy"
    """It was at work when the time was over."""
    FLOODED = "flooded"
    """It sent more records than are taken."""


@dataclass(frozen=True, order=True)
class Place:
    """A line of the app's code; `file` is absolute, `column` counts from 1 and is 0 where it is not known."""

    file: str
    line: int
    column: int = 0


@dataclass(frozen=True)
class Read:
    """One read. `raised`: it failed there and then; `given`: by way of an object that the app itself handed over;
    `loading`: while a library was loaded; `declared`: a field that a settings class names.
    """

    name: str
    by: Reader
    absent: bool
    place: Place | None = None
    raised: bool = False
    given: bool = False
    loading: bool = False
    declared: bool = False
    default: Plain | None = None
    type_name: str = ""
    library: str = ""


@dataclass(frozen=True)
class Run:
    """One run of the app with `given` set: what it read, in order, and how it ended."""

    reads: tuple[Read, ...]
    ending: Ending
    status: int = 0
    output: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    contained: Contained = UNKNOWN

    @property
    def failed(self) -> bool:
        """Whether it ended by itself, and not well."""
        return self.ending is Ending.EXITED and self.status != 0

    @property
    def told(self) -> bool:
        """Whether it came as far as it can: to its end, or to where it serves."""
        return self.ending is Ending.QUIET or (self.ending is Ending.EXITED and self.status == 0)

    @property
    def absent(self) -> tuple[Read, ...]:
        """Reads that found nothing, without those of the runtime."""
        return tuple(read for read in self.reads if read.absent and read.by is not Reader.RUNTIME)


@dataclass(frozen=True)
class Variable:
    """A variable and what is known of it. `default` of None: none, or not known; `reader`: whose code asks for it."""

    name: str
    kind: Kind
    required: bool
    places: tuple[Place, ...]
    reader: Reader
    library: str = ""
    default: Plain | None = None


@dataclass(frozen=True)
class Detected:
    """What an app reads. `why` is empty where it is complete."""

    entry: str
    runtime: str
    app_dir: str
    required: tuple[Variable, ...]
    optional: tuple[Variable, ...]
    by_libraries: tuple[Variable, ...]
    contained: Contained
    hidden: tuple[str, ...] = ()
    runs: int = 0
    seconds: float = 0.0
    why: str = ""

    @property
    def complete(self) -> bool:
        """Whether the app was seen to come as far as it can with all that it needs."""
        return not self.why
