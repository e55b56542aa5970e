"""What an engine that answers its ping says of itself and of us (F16, F17), and what a filter in front refuses.

Nothing is changed: the one write tried names an object that cannot be.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from supervisor.engine.facts import EngineAddress, EngineInfo, OwnContainer
from supervisor.engine.own_container import Traces, candidates, found_in_list, has_our_name, is_us, stop_seconds
from supervisor.engine.transport import LIMIT_SECONDS, Answer, ConnectError, NoAnswerError, ask

_NOBODY = "0" * 64
NEEDED = (
    ("GET", "/containers/json"),
    ("GET", "/images/json"),
    ("GET", "/networks"),
    ("GET", "/volumes"),
    ("GET", "/services"),
    ("GET", "/tasks"),
    ("GET", "/nodes"),
    ("GET", "/secrets"),
    ("GET", "/configs"),
    ("GET", "/swarm"),
    ("POST", f"/containers/{_NOBODY}/start"),
)
"""One of each kind we use; a proxy that lets us read but not write refuses the last."""
_REFUSED = frozenset({401, 403, 405})
_SERVER_ERRORS = range(500, 600)


@dataclass(frozen=True)
class Interview:
    """The answers; `silent_at` is the request that was not answered at all, after which nothing more was asked."""

    engine: EngineInfo | None = None
    refusals: tuple[str, ...] = ()
    own_container: OwnContainer = field(default_factory=OwnContainer)
    silent_at: str = ""


class _SilentError(Exception):
    """A request was not answered within its limit."""


@dataclass
class _Asking:
    """Asks one thing after another, and remembers what was refused."""

    endpoint: EngineAddress
    until: float
    limit_seconds: float
    refusals: list[str] = field(default_factory=list)

    def ask(self, path: str, method: str = "GET", *, note_refusal: bool = True) -> Answer:
        """Raises _SilentError."""
        limit = min(self.limit_seconds, self.until - time.monotonic())
        if limit <= 0:
            raise _SilentError(path)
        try:
            answer = ask(self.endpoint, path, method=method, limit_seconds=limit)
        except (ConnectError, NoAnswerError) as error:
            raise _SilentError(path) from error
        if note_refusal and answer.status in _REFUSED:
            self.refusals.append(f"{method} {path.replace(_NOBODY, '<id>')}: {answer.status}")
        return answer


def interview(
    endpoint: EngineAddress, traces: Traces, *, until: float, limit_seconds: float = LIMIT_SECONDS
) -> Interview:
    """Ask it all, until monotonic time `until`. Never raises for what an engine does; blocks."""
    asking = _Asking(endpoint, until, limit_seconds)
    engine: EngineInfo | None = None
    try:
        info, version = asking.ask("/info"), asking.ask("/version")
        if info.status in _SERVER_ERRORS:
            raise _SilentError(f"/info ({info.status})")
        engine = engine_info(info.json(), version.json())
        for method, path in NEEDED:
            asking.ask(path, method)
        return Interview(engine, tuple(asking.refusals), _own_container(asking, traces))
    except _SilentError as silent:
        return Interview(engine, tuple(asking.refusals), silent_at=str(silent))


def _own_container(asking: _Asking, traces: Traces) -> OwnContainer:
    """Our container as the engine knows it: by a candidate id, else by our address in the list."""
    tried = candidates(traces)
    for candidate in tried:
        document = asking.ask(f"/containers/{candidate}/json").json()
        if is_us(document, traces):
            return OwnContainer(tried, str(document.get("Id") or candidate), stop_seconds(document))
    listed = found_in_list(asking.ask("/containers/json", note_refusal=False).json(), traces)
    if listed:
        document = asking.ask(f"/containers/{listed}/json").json()
        # Engines give out the same addresses, MAC addresses too: a sidecar's first container has those of ours.
        if has_our_name(document, traces):
            return OwnContainer(tried, listed, stop_seconds(document))
    return OwnContainer(tried)


def engine_info(info: Any, version: Any) -> EngineInfo:
    """The fields we use, whatever a foreign or a broken server gives for them."""
    about = info if isinstance(info, dict) else {}
    versions = version if isinstance(version, dict) else {}
    cluster = about.get("Swarm")
    swarm = cluster if isinstance(cluster, dict) else {}
    components = versions.get("Components")
    return EngineInfo(
        id=_text(about, "ID"),
        name=_text(about, "Name"),
        version=_text(versions, "Version") or _text(about, "ServerVersion"),
        api_version=_text(versions, "ApiVersion"),
        least_api_version=_text(versions, "MinAPIVersion"),
        os_type=_text(about, "OSType") or _text(versions, "Os"),
        labels=_texts(about.get("Labels")),
        root_dir=_text(about, "DockerRootDir"),
        security_options=_texts(about.get("SecurityOptions")),
        components=tuple(_text(part, "Name") for part in components if isinstance(part, dict))
        if isinstance(components, list)
        else (),
        live_restore=about.get("LiveRestoreEnabled") is True,
        swarm_state=_text(swarm, "LocalNodeState"),
        swarm_manager=swarm.get("ControlAvailable") is True,
        swarm_address=_text(swarm, "NodeAddr"),
        swarm_error=_text(swarm, "Error"),
    )


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()
