"""What a reader is told where no mode fits: each text has what was seen, why it matters, and the next step. Pure."""

from __future__ import annotations

import json

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode
from supervisor.engine.facts import Connected, EngineAddress, EngineInfo, Facts, PathKind, Pinged, Process, SocketPath

LEAST_API = (1, 41)
"""Of engine 20.10, the oldest one that was tried."""
_FULL_UID_MAP = "0 0 4294967295"
_SOCKET_MOUNT = "-v /var/run/docker.sock:/var/run/docker.sock"
_UNSET = "unset SUPERVISOR_MODE to have it found"
_MAX_COMMAND = 200


def endpoint_text(facts: Facts) -> str:
    """The engine's address, for a message."""
    return repr(facts.chosen.endpoint.url if facts.chosen.endpoint is not None else facts.chosen.given)


def forced_otherwise(facts: Facts, why: str, mend: str) -> EngineError:
    """E01: a mode was chosen by name, and the facts speak against it."""
    return EngineError("E01", f"cannot use mode {facts.forced or ''!s}, which SUPERVISOR_MODE asks for: {why}; {mend}")


def forced_dind_cannot_start(facts: Facts) -> EngineError:
    """E01: dind by name, without what it takes."""
    return forced_otherwise(facts, _why_no_engine_of_our_own(facts), f"run with --privileged, or {_UNSET}")


def forced_without_socket(facts: Facts) -> EngineError:
    """E01: socket by name, without a socket."""
    path = repr(facts.socket.path if facts.socket else "")
    return forced_otherwise(facts, f"there is nothing at {path}", f"mount it ({_SOCKET_MOUNT}), or {_UNSET}")


def forced_dind_beside_remote(facts: Facts) -> EngineError:
    """E01: dind by name, beside an engine elsewhere: one of ours would never be asked."""
    why = f"{facts.chosen.source} names the engine {endpoint_text(facts)}, and none is started beside a configured one"
    return forced_otherwise(facts, why, f"unset {facts.chosen.source.split()[0]}, or unset SUPERVISOR_MODE")


def bad_endpoint(facts: Facts) -> EngineError:
    """E02 or E05: nobody can be asked at what was given."""
    chosen = facts.chosen
    if chosen.code == "E05":
        return EngineError(
            "E05",
            f"cannot use the engine context {chosen.given!r} named by {chosen.source}: {chosen.error}; "
            f"create it, name another one, or set DOCKER_HOST instead",
        )
    if chosen.code == "E02":
        return EngineError(
            "E02",
            f"cannot use {chosen.source} {chosen.given!r}: {chosen.error}; correct it, or unset it to have "
            f"the engine found",
        )
    return unclassified(facts)


def unreachable(facts: Facts, waited_seconds: float) -> EngineError:
    """E03: a configured engine does not answer."""
    endpoint, connection = facts.chosen.endpoint, facts.connection
    seen = connection.detail or facts.ping.detail or f"{connection.result}"
    if facts.socket is not None and facts.socket.kind is PathKind.ABSENT:
        seen = f"there is nothing at {facts.socket.path!r}"
    resolved = ""
    if endpoint is not None and endpoint.host:
        resolved = f" ({', '.join(connection.addresses) or 'the name does not resolve'})"
    return EngineError(
        "E03",
        f"cannot reach the engine at {endpoint_text(facts)}{resolved}, which {facts.chosen.source} names: {seen}, "
        f"tried for {waited_seconds:.0f} s; check the firewall and that daemon's own -H, or unset "
        f"{facts.chosen.source.split()[0]} to have the engine found here",
    )


def tls(facts: Facts) -> EngineError:
    """E04."""
    endpoint = facts.chosen.endpoint
    material = endpoint.tls if endpoint is not None else None
    how = f"certificates in {material.folder!r}, verify {material.verify}" if material else "no TLS is set"
    why = facts.connection.detail or facts.ping.detail
    return EngineError(
        "E04",
        f"cannot speak TLS with the engine at {endpoint_text(facts)}: {why} ({how}); put ca.pem, cert.pem and key.pem "
        f"that fit this name into DOCKER_CERT_PATH, and set DOCKER_TLS_VERIFY=1",
    )


def never_opened(facts: Facts, dockerd: Process, waited_seconds: float) -> EngineError:
    """E06: another init's dockerd, which does not come up."""
    path = facts.socket.path if facts.socket else ""
    return EngineError(
        "E06",
        f"cannot use the dockerd that runs here as pid {dockerd.pid}: it did not open {path!r} in "
        f"{waited_seconds:.0f} s (started {dockerd.age_seconds:.0f} s ago by {dockerd.parent or '?'}, pid "
        f"{dockerd.ppid}: {' '.join(dockerd.command)[:_MAX_COMMAND] or dockerd.comm}); look at the log of what started "
        f"it, or start the container without it",
    )


def no_engine(facts: Facts) -> EngineError:
    """E07: no socket, and no privileges for an engine of our own. Names all three ways out."""
    path = facts.socket.path if facts.socket else ""
    return EngineError(
        "E07",
        f"cannot find a Docker engine: {_what_is_there(facts.socket)}, and one of our own cannot be started: "
        f"{_why_no_engine_of_our_own(facts)}; do one of three: mount the host's socket (-v /var/run/docker.sock:"
        f"{path}), run the container with --privileged (or --runtime=sysbox-runc), or do without an engine with "
        f"--mode embedded (SUPERVISOR_MODE=embedded)",
    )


def _what_is_there(at: SocketPath | None) -> str:
    path = repr(at.path if at is not None else "")
    nothing = at is None or at.kind is PathKind.ABSENT
    return f"there is nothing at {path}" if nothing else f"nobody listens on {path}"


def _why_no_engine_of_our_own(facts: Facts) -> str:
    privileges = facts.privileges
    parts = []
    if privileges.missing:
        parts.append(f"missing capabilities {', '.join(privileges.missing)}")
    parts += [f"refused: {probe}" for probe in privileges.failed_probes]
    if privileges.suffice and "dockerd" not in facts.programs:
        parts.append("there is no dockerd on PATH")
    if facts.us.uid != 0:
        parts.append(f"we run as uid {facts.us.uid}")
    return ", ".join(parts) or "the facts do not allow it"


def no_dockerd(facts: Facts) -> EngineError:
    """E08."""
    return EngineError(
        "E08",
        f"cannot start a Docker engine: {_what_is_there(facts.socket)}, the container has the privileges, but this "
        f"image has no dockerd; use the image variant with the engine (Dockerfile.dind), mount the host's socket "
        f"({_SOCKET_MOUNT}), or do without one with --mode embedded",
    )


def mounted_directory(at: SocketPath) -> EngineError:
    """E09."""
    return EngineError(
        "E09",
        f"cannot use {at.path!r}: it is a directory, mounted at {at.mount!r}: the host had no socket when this "
        f"container was created, so Docker made an empty directory there, and will fail to start over it; on the "
        f"host: stop docker, remove that directory, start docker, then create this container anew (with --mount "
        f"type=bind instead of -v, Docker refuses in place of making a directory)",
    )


def no_socket_there(at: SocketPath) -> EngineError:
    """E10."""
    what = f"a {at.kind}" if at.kind is not PathKind.OTHER else "neither a socket, a file nor a folder"
    size = {
        PathKind.DIRECTORY: "empty" if at.is_empty else f"{at.entries} entries",
        PathKind.FILE: f"{at.size} bytes",
        PathKind.DANGLING_LINK: f"to {at.real_path!r}",
    }.get(at.kind, "")
    mounted = f", on the mount {at.mount!r}" if at.is_mounted else ""
    details = ", ".join(part for part in (size, f"owner {at.uid}:{at.gid}") if part)
    return EngineError(
        "E10",
        f"cannot use {at.path!r} as the engine's socket: it is {what} ({details}{mounted}); remove it, or point "
        f"DOCKER_HOST at the socket",
    )


def denied(facts: Facts, at: SocketPath) -> EngineError:
    """E11. Never a reason to start an engine of our own."""
    us = facts.us
    who = f"we are uid {us.uid}, groups {', '.join(map(str, us.groups)) or us.gid}"
    if at.kind is PathKind.UNSEARCHABLE:
        why, mend = f"the folder {at.blocked_at!r} may not be searched", "open that folder (chmod o+x)"
    else:
        why = f"it is {at.mode:04o}, owner {at.uid}:{at.gid}"
        mend = f"add --group-add {at.gid} to docker run"
    hints = []
    if us.selinux:
        hints.append("; SELinux is enforced: --security-opt label=disable may be needed")
    if facts.privileges.uid_map not in ("", _FULL_UID_MAP):
        hints.append("; our user ids are remapped: --userns=host may be needed")
    return EngineError(
        "E11",
        f"cannot use the engine's socket {at.path!r}: permission denied ({why}; {who}); {mend}, or run as root "
        f"(--user 0){''.join(hints)}",
    )


def refuses(at: SocketPath, waited_seconds: float) -> EngineError:
    """E12."""
    return EngineError(
        "E12",
        f"cannot connect to the mounted socket {at.path!r}: connection refused for {waited_seconds:.0f} s; the host's "
        f"daemon is down, or it was restarted and made its socket anew, so that our mount holds the dead one: start "
        f"Docker on the host, then restart this container (a mount of the folder instead of the file does not hold "
        f"on to a dead socket)",
    )


def hangs(facts: Facts, waited_seconds: float) -> EngineError:
    """E13."""
    peer = facts.connection.peer
    who = "a process outside our PID namespace" if peer is not None and peer.pid == 0 else "its listener"
    if peer is not None and peer.process is not None:
        who = f"{peer.process.comm}, pid {peer.pid}"
    why = facts.ping.detail or facts.connection.detail
    return EngineError(
        "E13",
        f"cannot get an answer from the engine at {endpoint_text(facts)}: {who} takes connections, but {why}, tried "
        f"for {waited_seconds:.0f} s; check disk space and load where it runs, and that daemon's own log",
    )


def not_docker(facts: Facts) -> EngineError:
    """E14."""
    engine = facts.engine
    if engine is None or facts.ping.result is not Pinged.OK:
        seen = facts.ping.detail or f"it answered its ping with {facts.ping.status}"
    else:
        parts = f", {', '.join(engine.components)}" if engine.components else ""
        seen = f"it is {engine.name or 'one'} {engine.version} on {engine.os_type or 'an unknown system'}{parts}"
    return EngineError(
        "E14",
        f"cannot use what answers at {endpoint_text(facts)}: {seen}, and a Docker engine with Swarm on Linux is "
        f"needed; point DOCKER_HOST at one, or mount its socket",
    )


def rootless(facts: Facts) -> EngineError:
    """E15."""
    return EngineError(
        "E15",
        f"cannot use the engine at {endpoint_text(facts)}: it runs rootless, where overlay networks do not work; use "
        f"the socket of a rootful engine, or run with --privileged and no socket for an engine of our own",
    )


def wrong_api(facts: Facts, engine: EngineInfo) -> EngineError:
    """E16."""
    least = ".".join(map(str, LEAST_API))
    return EngineError(
        "E16",
        f"cannot use engine {engine.version} at {endpoint_text(facts)}: it speaks API "
        f"{engine.least_api_version or '?'} to {engine.api_version or '?'}, we speak {least} and newer of 1; use an "
        f"engine from 20.10 on",
    )


def filtered(facts: Facts) -> EngineError:
    """E17."""
    refused = ", ".join(facts.refusals) or f"GET /_ping: {facts.ping.status}"
    return EngineError(
        "E17",
        f"cannot use the engine at {endpoint_text(facts)}: a filter in front of it refuses what we need ({refused}); "
        f"let through reading and writing of ping, version, info, events, images, containers, networks, volumes, "
        f"swarm, services, tasks, nodes, secrets, configs and exec, or mount the engine's own socket",
    )


def unclassified(facts: Facts) -> EngineError:
    """E99."""
    record = json.dumps(facts.as_dict(), ensure_ascii=False, sort_keys=True)
    return EngineError(
        "E99",
        f"cannot choose a mode: these facts fit no row of the table; set SUPERVISOR_MODE, and report this line: "
        f"{record}",
    )


def is_tls_mistake(facts: Facts) -> bool:
    """Whether a TLS port was spoken to in the clear, or the handshake failed."""
    return facts.connection.result is Connected.TLS or "HTTPS server" in facts.ping.detail


def is_tcp(endpoint: EngineAddress | None) -> bool:
    """Whether the engine is across a network, or spoken to as if it were."""
    return endpoint is not None and endpoint.host != ""


def contradiction(facts: Facts, found: Mode, reason: str) -> EngineError:
    """E01: another mode was found."""
    mend = f"{_UNSET}, or make {facts.forced or ''!s} possible"
    return forced_otherwise(facts, f"what is here is {found}: {reason}", mend)
