"""Which kind of front an app gets: decided from the setting and from what is installed."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.app.front.model import FrontKind
from supervisor.core.errors import ConfigurationError

MEND = "install HAProxy (Debian package haproxy)"


@dataclass(frozen=True)
class Choice:
    """The kind, and why; `lossy` says what is lost by it and how to mend that, empty where nothing is.

    `binary` is HAProxy's, for the kind `proxy`.
    """

    kind: FrontKind
    reason: str
    lossy: str = ""
    binary: str = ""


def choose_front(wanted: str, binary: str | None) -> Choice:
    """`wanted` is `auto`, or a kind by name; `binary` is the haproxy that was found.

    Raises ConfigurationError where what was asked for by name cannot be had.
    """
    lossy = "requests are refused while the app reloads"
    match wanted:
        case FrontKind.RESTART:
            return Choice(FrontKind.RESTART, "SUPERVISOR_FRONT asks for it", lossy)
        case FrontKind.PROXY if binary is None:
            raise ConfigurationError(
                f"cannot use SUPERVISOR_FRONT=proxy: no haproxy is found; {MEND}, or set SUPERVISOR_FRONT=auto"
            )
        case FrontKind.PROXY if binary is not None:
            return Choice(FrontKind.PROXY, "SUPERVISOR_FRONT asks for it", binary=binary)
    if binary is None:
        return Choice(FrontKind.RESTART, "no haproxy is found", f"{lossy}; {MEND}")
    return Choice(FrontKind.PROXY, f"{binary} is there", binary=binary)
