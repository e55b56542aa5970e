"""Many mistakes in one error."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.releases.model import ReleaseError

_SHOWN = 20


def refusal(what: str, mistakes: Sequence[str]) -> ReleaseError:
    """`cannot <what>:` and the mistakes, a line each, at most 20; each says what to do itself."""
    lines = list(mistakes[:_SHOWN])
    if len(mistakes) > _SHOWN:
        lines.append(f"and {len(mistakes) - _SHOWN} more")
    return ReleaseError("\n".join([f"cannot {what}:", *(f"  - {line}" for line in lines)]))
