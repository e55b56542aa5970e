"""Where the control socket may be. Imports nothing heavy: the health check of an image runs every few seconds."""

from __future__ import annotations

from collections.abc import Mapping

SOCKET_NAME = "control.sock"
MAX_SOCKET_BYTES = 107  # sockaddr_un.sun_path is 108 with its closing zero, unix(7)


def candidates(environ: Mapping[str, str], given: str | None = None) -> list[str]:
    """Paths to try, in order. One that was named (argument or environment) is the only one."""
    if given:
        return [given]
    if environ.get("SUPERVISOR_SOCKET"):
        return [environ["SUPERVISOR_SOCKET"]]
    if environ.get("SUPERVISOR_RUNTIME_DIR"):
        return [f"{environ['SUPERVISOR_RUNTIME_DIR'].rstrip('/')}/{SOCKET_NAME}"]
    folders = ["/run/supervisor"]
    if environ.get("XDG_RUNTIME_DIR"):
        folders.append(f"{environ['XDG_RUNTIME_DIR']}/supervisor")
    # Where neither root nor a session gives a runtime folder, sockets are kept below the state.
    state_home = environ.get("XDG_STATE_HOME") or f"{environ.get('HOME') or '/tmp'}/.local/state"  # noqa: S108
    folders.append(f"{environ.get('SUPERVISOR_STATE_DIR') or f'{state_home}/supervisor'}/run")
    return [f"{folder}/{SOCKET_NAME}" for folder in folders]
