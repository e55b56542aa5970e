"""The log: a subscriber that prints events, children's output and libraries' messages, masked, as one stream.

Who writes it is `writer`, what is masked is decided in `redact`; which text an event has is decided here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from supervisor.core import events
from supervisor.core.events import Event
from supervisor.observe.redact import Redactor
from supervisor.observe.writer import Writer
from supervisor.process.output import Dropped, Line, text_bytes

# structlog.dev loads rich where it is installed: 4.1 MB resident (measured) which this process never uses. A None in
# sys.modules makes an import fail; taken out again at once, so that others may still load rich.
_HIDES_RICH = "rich" not in sys.modules
if _HIDES_RICH:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if _HIDES_RICH:
        del sys.modules["rich"]

LEVELS = ("debug", "info", "warning", "error")
_SHORT = {"warning": "warn"}
_EVENT_BYTES = 500

_LINE_ENDS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
_to_json = json.JSONEncoder(ensure_ascii=False).encode

TEXTS: Mapping[type[Event], str] = {
    events.SupervisorStarted: "supervisor started",
    events.OverallChanged: "overall state",
    events.PhaseStarted: "boot phase started",
    events.PhaseFinished: "boot phase finished",
    events.BootFinished: "boot finished",
    events.ServiceChanged: "service state",
    events.ServiceHealthChanged: "service health",
    events.ServiceGaveUp: "service gave up",
    events.FrontChosen: "app front",
    events.GenerationChanged: "app generation",
    events.AppHealthChanged: "app health",
    events.AppHeld: "app is held",
    events.AppRestarting: "app is restarted",
    events.RouteChanged: "app route",
    events.ReloadRequested: "reload requested",
    events.ReloadFinished: "reload finished",
    events.SecretRotated: "secret rotated",
    events.MigrationsFinished: "migrations finished",
    events.HookFinished: "hook finished",
    events.ReleaseActive: "app runs from",
    events.ReleaseUnpacking: "release is unpacked",
    events.FileKept: "edited file kept",
    events.LeftoverStopped: "leftover process stopped",
}

# By word: the states of services, generations and the whole share theirs.
_GRAVE: Mapping[str | None, str] = {
    "failed": "error",
    "backoff": "warning",
    "degraded": "warning",
    "unhealthy": "warning",
}


@dataclass(frozen=True, slots=True)
class Record:
    """One line of our own log; `source` stands in brackets in text, `keys` hold values of any JSON type."""

    at: datetime
    level: str
    event: str
    text: str
    source: str = "supervisor"
    keys: dict[str, Any] = field(default_factory=dict)


def level_of(event: Event) -> str:
    """How grave an event is: its class's level, raised by a bad state or result."""
    if isinstance(event, events.ReloadFinished | events.SecretRotated) and event.result != "ok":
        return "error"
    if isinstance(event, events.HookFinished) and not event.ok:
        return "warning"
    grave = _GRAVE.get(getattr(event, "state", None)) or _GRAVE.get(getattr(event, "health", None))
    return grave or event.level


def record_of(event: Event) -> Record:
    """The log line of an event: constant text, the values as keys."""
    keys = event.as_dict()
    del keys["event"], keys["at"]
    keys.pop("promises", None)  # for those who ask; the same at every start
    text = TEXTS.get(type(event)) or keys.pop("message", "") or event.name
    source = keys.get("service") or keys.get("app") or "supervisor"
    return Record(event.at, level_of(event), event.name, text, source, keys)


def stamp(at: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def wants_json(log_format: str, descriptor: int = 1) -> bool:
    """What `SUPERVISOR_LOG_FORMAT` means for this descriptor: `auto` is text on a terminal, else JSON."""
    return log_format == "json" or (log_format == "auto" and not os.isatty(descriptor))


class TextRenderer:
    """`12:34:56.789 info  [postgres] service state state=running`, local time; longer texts follow, indented."""

    def __init__(self) -> None:
        self._logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)

    def __call__(self, logger: Any, method: str, record: structlog.typing.EventDict) -> str:
        """A structlog processor, the last of its chain."""
        head = (
            f"{record.pop('at').astimezone().strftime('%H:%M:%S.%f')[:12]} "
            f"{_SHORT.get(record['level'], record['level']):<5} [{record.pop('source')}] {_visible(record.pop('msg'))}"
        )
        del record["level"], record["event"]
        for named_by_source in ("service", "app"):
            record.pop(named_by_source, None)
        flat = _flatten(record)
        blocks = {key: value for key, value in flat.items() if "\n" in str(value)}
        short = {key: _visible(str(value)) for key, value in flat.items() if key not in blocks}
        lines = [f"{head} {self._logfmt(logger, method, short)}".rstrip()]
        for key, value in blocks.items():
            lines.append(f"    {key}:")
            lines.extend(f"    | {_visible(line)}" for line in str(value).splitlines())
        return "\n".join(lines)


class JsonRenderer:
    """One JSON object a line; `at`, `level`, `event` and `msg` come first, `source` says who spoke."""

    def __init__(self) -> None:
        self._json = structlog.processors.JSONRenderer(default=str, ensure_ascii=False, allow_nan=False)

    def __call__(self, logger: Any, method: str, record: structlog.typing.EventDict) -> str:
        """A structlog processor, the last of its chain."""
        first = {"at": stamp(record.pop("at"))} | {key: record.pop(key) for key in ("level", "event", "msg")}
        return _one_line(str(self._json(logger, method, first | dict(record))))


def _one_line(text: str) -> str:
    """JSON lets U+2028 and its like stand as they are, but some readers take them for the end of a line."""
    return text if text.isascii() else text.translate(_LINE_ENDS)


def _flatten(values: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings become a block of aligned lines, lists are joined by commas."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            width = max(map(len, value), default=0)
            # The newline at its end makes it a block, however short it is.
            flat[key] = "".join(f"{name:<{width}}  {item}\n" for name, item in value.items())
        else:
            flat[key] = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
    return flat


def _visible(text: str) -> str:
    """Control characters as escapes: a foreign error text must not move the cursor of whoever reads the log."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text
    )


class _Returned:
    """structlog's innermost logger: what the chain rendered is handed back to the caller."""

    def msg(self, text: str) -> str:
        return text


class Rendering:
    """Records and children's lines as text, masked; of JSON each is one valid line whatever is in it."""

    def __init__(self, redactor: Redactor, *, as_json: bool) -> None:
        self._redactor = redactor
        self._as_json = as_json
        renderer = JsonRenderer() if as_json else TextRenderer()
        self._logger = structlog.BoundLogger(_Returned(), [self._mask, renderer], {})

    def __call__(self, item: Record | Line) -> str:
        """With its newline."""
        if isinstance(item, Line):
            return self._line(item)
        try:
            return self._record(item)
        except Exception as error:  # a value nobody thought of must not make a line that is no JSON
            keys = {"about": item.event, "error": repr(error)}
            return self._record(Record(item.at, "error", "log.broken", "cannot render a log record", keys=keys))

    def _record(self, item: Record) -> str:
        values = {"at": item.at, "level": item.level, "source": item.source, "msg": item.text, **item.keys}
        return f"{self._logger.msg(item.event, **values)}\n"

    def _line(self, line: Line) -> str:
        if not self._as_json:
            # Children write for a terminal: their colours are theirs, so the text is passed on as it is.
            at = line.at.astimezone().strftime("%H:%M:%S.%f")[:12]
            return f"{at} {line.stream.removeprefix('std'):<5} [{line.source}] {self._redactor.text(line.text)}\n"
        # The same keys in the same order as `JsonRenderer`, in a quarter of its time: a flood is made of these.
        values = {
            "at": stamp(line.at),
            "level": "info",
            "event": "output",
            "msg": self._redactor.text(line.text),
            "source": line.source,
            "stream": line.stream,
        }
        return f"{_one_line(_to_json(values))}\n"

    def _mask(self, logger: Any, method: str, record: structlog.typing.EventDict) -> structlog.typing.EventDict:
        for key, value in record.items():
            record[key] = self._redactor.value(value)
        return record


class Files(Protocol):
    """Where lines are kept beside the log (`logfiles.LogFiles`)."""

    def put(self, item: Record | Line, size_bytes: int) -> None:
        """Take one; never blocks."""

    def close(self, deadline_seconds: float) -> None:
        """Write what is left."""


class LogSink:
    """The log as a whole. `publish` is an event subscriber, `line` takes children's output; neither blocks or raises.

    `level` is the least level of our own lines that is printed; children's output always is. Secrets known to
    `redactor` are masked in all of it. `close` (or `flush`) must be called before the process ends.
    """

    def __init__(
        self, *, descriptor: int = 1, as_json: bool, level: str = "info", redactor: Redactor | None = None
    ) -> None:
        self.redactor = redactor or Redactor()
        self.files: Files | None = None
        self._printed = frozenset(LEVELS[LEVELS.index(level) :])
        self._render = Rendering(self.redactor, as_json=as_json)
        self._writer: Writer[Record | Line] = Writer(descriptor, render=self._render, announce=self._announce)

    def publish(self, event: Event) -> None:
        """Print an event."""
        if level_of(event) in self._printed:
            self._put_record(record_of(event))

    def record(self, record: Record) -> None:
        """Print a line that is no event: a library's."""
        if record.level in self._printed:
            self._put_record(record)

    def warn(self, text: str) -> None:
        """Print what is wrong with the log itself."""
        self.record(Record(datetime.now(UTC), "warning", "log.trouble", text))

    def line(self, line: Line) -> None:
        """Print a line of a child's output with its source's name."""
        self._put(line, line.cost_bytes)

    def dropped(self, dropped: Dropped) -> None:
        """Print that output was dropped."""
        keys = {"stream": dropped.stream, "count": dropped.lines, "bytes": dropped.bytes}
        self.record(Record(datetime.now(UTC), "warning", "log.dropped", dropped.reason, dropped.source, keys))

    @property
    def lines_lost(self) -> int:
        """Lines that nobody could take: whoever reads the log was too slow, or the disk was full."""
        return self._writer.total_lost

    def register_secret(self, secret: Any) -> None:
        """Mask this string, or `Secret`, wherever it turns up."""
        self.redactor.register_secret(secret)

    def flush(self, deadline_seconds: float = 1.0) -> bool:
        """Block until all was written or the deadline; whether it was."""
        return self._writer.flush(deadline_seconds)

    def close(self, deadline_seconds: float = 1.0) -> None:
        """Flush, then stop printing."""
        if self.files is not None:
            self.files.close(deadline_seconds)
        self._writer.close(deadline_seconds)

    def _put_record(self, record: Record) -> None:
        texts = sum(text_bytes(value) for value in record.keys.values() if isinstance(value, str))
        self._put(record, _EVENT_BYTES + text_bytes(record.text) + texts)

    def _put(self, item: Record | Line, size_bytes: int) -> None:
        self._writer.put(item, size_bytes)
        if self.files is not None:
            self.files.put(item, size_bytes)

    def _announce(self, count: int) -> str:
        text = "log lines dropped: whoever reads the log is too slow or gone"
        return self._render(Record(datetime.now(UTC), "warning", "log.dropped", text, keys={"count": count}))


class _LibraryHandler(logging.Handler):
    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            keys: dict[str, Any] = {"logger": record.name}
            if record.exc_info and record.exc_info[0] is not None:
                keys["traceback"] = logging.Formatter().formatException(record.exc_info)
            level = "error" if record.levelno >= logging.ERROR else "warning"
            if record.levelno < logging.WARNING:
                level = "info" if record.levelno >= logging.INFO else "debug"
            at = datetime.fromtimestamp(record.created, UTC)
            self._sink.record(Record(at, level, "log", record.getMessage(), keys=keys))
        except Exception:
            self.handleError(record)


def capture_logging(sink: LogSink) -> None:
    """Send what libraries say through `logging` and `warnings` to the log: warnings and worse."""
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler(sink)]
    root.setLevel(logging.WARNING)
