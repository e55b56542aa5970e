"""Opens the log: on standard output, and in files where they are wanted. Wiring."""

from __future__ import annotations

from pathlib import Path

from supervisor.observe.log import LogSink, Record, Rendering, capture_logging, wants_json
from supervisor.observe.logfiles.files import LogFiles
from supervisor.observe.logfiles.rotation import Keeping
from supervisor.process.output import Line


def open_log(log_format: str, level: str, *, folder: Path | None = None, keeping: Keeping | None = None) -> LogSink:
    """The sink, which the caller closes; what libraries say goes there too. Files are JSON lines in any case."""
    sink = LogSink(as_json=wants_json(log_format), level=level)
    capture_logging(sink)
    if folder is not None:
        sink.files = LogFiles[Record | Line](
            folder,
            source_of=lambda item: item.source,
            render=Rendering(sink.redactor, as_json=True),
            tell=sink.warn,
            keeping=keeping,
        )
    return sink
