"""The output of every source, as it is kept: one ring each. Wiring."""

from __future__ import annotations

from typing import Any

from supervisor.process.framer import KeepWhole
from supervisor.process.meter import Rate
from supervisor.process.output import OnDropped, OnLine, Ring


class Rings:
    """The output ring of every source, made on first use."""

    def __init__(
        self,
        on_line: OnLine,
        *,
        rate: Rate | None = None,
        on_dropped: OnDropped | None = None,
        keep_whole: KeepWhole | None = None,
    ) -> None:
        self._on_line = on_line
        self._rate = rate
        self._on_dropped = on_dropped
        self._keep_whole = keep_whole
        self._rings: dict[str, Ring] = {}

    def ring(self, name: str) -> Ring:
        """The ring of `name`."""
        if name not in self._rings:
            self._rings[name] = Ring(
                name,
                on_line=self._on_line,
                rate=self._rate,
                on_dropped=self._on_dropped,
                keep_whole=self._keep_whole,
            )
        return self._rings[name]

    def sources(self) -> list[str]:
        """The names there are."""
        return sorted(self._rings)

    def get(self, name: str) -> Ring | None:
        """The ring of `name` where there is one."""
        return self._rings.get(name)

    def dropped(self) -> list[dict[str, Any]]:
        """What was dropped of each source that printed too fast; JSON-ready."""
        return [
            {"source": name, "lines": ring.lines_dropped, "bytes": ring.bytes_dropped}
            for name, ring in sorted(self._rings.items())
            if ring.bytes_dropped
        ]
