"""What a decision rests on, in lines for the log and `env detect`. Pure."""

from __future__ import annotations

from supervisor.engine import mode_errors
from supervisor.engine.facts import Connected, Facts, Pinged, Process


def evidence(facts: Facts) -> tuple[str, ...]:
    """What the decision rests on, a line each, for the log and `env detect`."""
    lines = [f"engine address {mode_errors.endpoint_text(facts)} ({facts.chosen.source})"]
    at, connection = facts.socket, facts.connection
    if at is not None:
        mounted = f", on the mount {at.mount!r}" if at.is_mounted else ""
        lines.append(f"{at.path!r} is {at.kind}{mounted}")
    if connection.result is not Connected.NOT_TRIED:
        lines.append(f"connect: {connection.result}{_detail(connection.detail)}")
    if connection.peer is not None:
        process = connection.peer.process
        where = f"{process.comm}, started by {process.parent or '?'}" if process is not None else "unknown"
        where = "outside our PID namespace" if connection.peer.pid == 0 else where
        lines.append(f"listener: pid {connection.peer.pid} ({where}), uid {connection.peer.uid}")
    if facts.ping.result is not Pinged.NOT_TRIED:
        lines.append(f"ping: {facts.ping.result}{_detail(facts.ping.detail)}")
    if facts.engine is not None:
        engine = facts.engine
        lines.append(f"engine {engine.version or '?'}, API {engine.api_version or '?'}, Swarm {engine.swarm_state}")
        lines.append(f"our container: {facts.own_container.found[:12] or 'not known to it'}")
    lines += [f"{one.comm}: pid {one.pid}, {_standing(one, facts)}" for one in facts.processes]
    lines.append(f"missing capabilities: {', '.join(facts.privileges.missing) or 'none'}")
    lines += [f"refused: {probe}" for probe in facts.privileges.failed_probes]
    lines.append(f"dockerd: {facts.programs.get('dockerd', 'not on PATH')}")
    return tuple(lines)


def _standing(process: Process, facts: Facts) -> str:
    if not process.is_alive:
        return "a zombie"
    if process.same_mounts is False:
        return "live, in another mount namespace"
    elsewhere = facts.socket is not None and process.listens_elsewhere(facts.socket.path)
    return "live, listens elsewhere" if elsewhere else "live"


def _detail(text: str) -> str:
    return f" ({text})" if text else ""
