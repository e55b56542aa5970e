"""Preflight facts about the engine: which mode it is and why, what a run may do here, and how the engine stands.

`look` asks, within seconds and without a change; everything else judges what it brought, and is pure.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import anyio

from supervisor.commands.env import sources
from supervisor.commands.fact import Fact
from supervisor.core.errors import ConfigurationError, EngineError, SupervisorError
from supervisor.core.mode import Mode, Owner
from supervisor.core.settings import Settings, variable
from supervisor.engine.client import NEWEST_API, OLDEST_API, Engine
from supervisor.engine.connect import endpoint_of
from supervisor.engine.decision import Decision, Wait
from supervisor.engine.evidence import evidence
from supervisor.engine.facts import EngineInfo, Facts, Probed
from supervisor.engine.keeping import state_keeping
from supervisor.engine.labels import STACK
from supervisor.engine.mode import decide
from supervisor.engine.reader import FactReader, Sources
from supervisor.engine.swarm_plan import (
    Initialise,
    Refuse,
    RepairAddress,
    Situation,
    SwarmFacts,
    SwarmInit,
    SwarmSettings,
    Use,
    plan_swarm,
)
from supervisor.engine.swarm_plan import Wait as SwarmWait
from supervisor.state import Paths

_MIB = 1 << 20
_LEAST_DISK_MIB = 256
_GOOD_DISK_MIB = 2048  # the images of Postgres, Redis and Traefik take about 0.6 GiB unpacked
_GOOD_CLOCK_SECONDS = 2.0
_ASKING_SECONDS = 5.0
_NO_DISK = "make room (`docker system prune`), or give the engine a larger disk"


@dataclass(frozen=True)
class Asked:
    """What an engine that serves said now; `clock_seconds` is how far its clock is ahead of ours."""

    info: Mapping[str, Any]
    containers: Sequence[Mapping[str, Any]]
    services: Sequence[Mapping[str, Any]]
    clock_seconds: float | None


@dataclass(frozen=True)
class Look:
    """Everything the facts are made of. `layer_free_bytes` is the room on the disk that holds our own layer."""

    facts: Facts
    outcome: Decision | Wait | EngineError
    asked: Asked | None = None
    layer_free_bytes: int = 0
    keeping: str = ""

    @property
    def mode(self) -> Mode | None:
        """The mode that a run would choose; None while it would not get that far."""
        return self.outcome.mode if isinstance(self.outcome, Decision) else None


def examine(settings: Settings, environ: Mapping[str, str], paths: Paths) -> Iterator[Fact]:
    """All of them. Changes nothing; takes seconds where an engine does not answer."""
    yield from judge(anyio.run(look, settings, environ, paths), settings, paths)


async def look(settings: Settings, environ: Mapping[str, str], paths: Paths) -> Look:
    """Read what a run would read, and ask the engine where one serves."""
    facts = await FactReader(_sources(settings, environ, paths)).read()
    outcome: Decision | Wait | EngineError
    try:
        outcome = decide(facts)
    except EngineError as error:
        outcome = error
    room = os.statvfs("/")
    seen = Look(facts, outcome, None, room.f_bavail * room.f_frsize, state_keeping(paths.state))
    if not isinstance(outcome, Decision) or outcome.endpoint is None or outcome.start_engine:
        return seen
    engine = Engine(endpoint_of(outcome.endpoint))
    try:
        return replace(seen, asked=await _ask(engine))
    finally:
        engine.close()


def _sources(settings: Settings, environ: Mapping[str, str], paths: Paths) -> Sources:
    try:
        return sources(environ)
    except ConfigurationError:  # told by a fact of its own; the rest is checked with the defaults
        return Sources.of(settings, environ, paths.runtime)


async def _ask(engine: Engine) -> Asked | None:
    with contextlib.suppress(SupervisorError), anyio.move_on_after(_ASKING_SECONDS):
        began = time.time()
        info = await engine.info()
        ended = time.time()
        services = await engine.services.find() if SwarmFacts.parse(info).usable else []
        return Asked(info, await engine.containers.find(), services, ahead(info, (began + ended) / 2))
    return None


def ahead(info: Mapping[str, Any], ours: float) -> float | None:
    """How many seconds the engine's clock is ahead of `ours` (Unix time); its own has an offset, and nanoseconds."""
    try:
        return datetime.fromisoformat(str(info.get("SystemTime") or "")).timestamp() - ours
    except ValueError:
        return None


def judge(seen: Look, settings: Settings, paths: Paths) -> Iterator[Fact]:
    """The facts, in the order in which a run meets them."""
    yield from mode(seen)
    if seen.mode not in (Mode.EMBEDDED, Mode.NONE):
        yield capabilities(seen)
        yield cgroup(seen)
        yield storage(seen)
    if seen.facts.engine is not None and isinstance(seen.outcome, Decision):
        yield version(seen.facts.engine)
    if seen.asked is not None:
        yield swarm(seen, seen.asked, settings)
        yield clock(seen.asked)
        yield from ports(seen, seen.asked, settings)
    if seen.mode in (Mode.DIND, Mode.SOCKET):
        yield disk(seen)
    yield keeping(seen, paths)


def mode(seen: Look) -> Iterator[Fact]:
    """What a run would choose, and on what evidence."""
    outcome = seen.outcome
    if isinstance(outcome, Decision):
        owner = f" ({outcome.owner} engine)" if outcome.owner is not None else ""
        yield Fact.ok("mode", f"{outcome.mode}{owner}: {outcome.reason} (row {outcome.row})")
        yield from (_from_text(Fact.warning, "mode", text, "see CONTAINERIZATION.md") for text in outcome.warnings)
    else:
        error = outcome.error if isinstance(outcome, Wait) else outcome
        waits = f"; a run waits up to {outcome.seconds:g} s for it" if isinstance(outcome, Wait) else ""
        yield _from_text(Fact.failed, "mode", str(error), f"see {error.code} in CONTAINERIZATION.md", after=waits)
    if seen.mode not in (Mode.EMBEDDED, Mode.NONE):
        yield from (Fact.note("evidence", line) for line in evidence(seen.facts))


def _from_text(grade: Any, name: str, text: str, otherwise: str, *, after: str = "") -> Fact:
    """Our texts read `what is wrong; what to do`."""
    found, _, mend = text.partition("; ")
    made: Fact = grade(name, found + after, mend or otherwise)
    return made


def capabilities(seen: Look) -> Fact:
    """What a dockerd of our own needs; another's engine needs none of it."""
    held = seen.facts.privileges
    lacks = [f"missing {', '.join(held.missing)}"] if held.missing else []
    lacks += [f"refused: {probe}" for probe in held.failed_probes if not probe.startswith("make a cgroup")]
    if not lacks:
        return Fact.ok("capabilities", "all that an engine of our own needs")
    found = "; ".join(lacks)
    if seen.mode is Mode.DIND:
        return Fact.failed("capabilities", found, "start the container with --privileged")
    return Fact.note("capabilities", f"{found} (needed for an engine of our own only)")


def cgroup(seen: Look) -> Fact:
    """The version, and whether groups can be made."""
    version, probe = seen.facts.cgroup, seen.facts.privileges.cgroup
    writable = {Probed.OK: "writable", Probed.FAILED: f"not writable ({probe.detail})"}.get(probe.result, "not tried")
    found = f"{version.version}, {writable}"
    if probe.result is Probed.FAILED and seen.mode is Mode.DIND:
        return Fact.failed(
            "cgroup", found, "start the container with --privileged, and without a read-only cgroup mount"
        )
    return Fact.ok("cgroup", found) if probe.result is Probed.OK else Fact.note("cgroup", found)


def storage(seen: Look) -> Fact:
    """Where images and volumes of the engine lie."""
    root = seen.facts.data_root
    if seen.mode is not Mode.DIND:
        info = seen.asked.info if seen.asked is not None else {}
        if not info:
            return Fact.note("storage", "not known: no engine was asked")
        return Fact.ok(
            "storage", f"{info.get('Driver', '?')} in {info.get('DockerRootDir', '?')} of the engine's machine"
        )
    found = f"{root.path} on {root.file_system or '?'}, mounted at {root.mount or '?'}"
    if root.mount != root.path and root.file_system == "overlay":
        return Fact.warning(
            "storage",
            f"{found}: the container's own layer, where overlay2 does not work and nothing outlives the container",
            "mount a volume there: -v dokploy-docker:/var/lib/docker",
        )
    return Fact.ok("storage", found)


def version(engine: EngineInfo) -> Fact:
    """Whether we speak an API of the engine's."""
    oldest, newest = (".".join(map(str, api)) for api in (OLDEST_API, NEWEST_API))
    found = f"{engine.version or '?'}, API {engine.least_api_version or '?'} to {engine.api_version or '?'}"
    if _parsed(engine.api_version) < OLDEST_API:
        return Fact.failed("engine", found, f"update the engine to 20.10 or newer (API {oldest})")
    if engine.least_api_version and _parsed(engine.least_api_version) > NEWEST_API:
        return Fact.failed("engine", found, f"update the supervisor: it speaks API {oldest} to {newest}")
    return Fact.ok("engine", found)


def _parsed(api: str) -> tuple[int, int]:
    major, _, minor = api.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else OLDEST_API


def swarm(seen: Look, asked: Asked, settings: Settings) -> Fact:
    """What a run would make of the engine's Swarm."""
    facts = SwarmFacts.parse(asked.info)
    owned = isinstance(seen.outcome, Decision) and seen.outcome.owner is Owner.OWN
    whose = "this container's own engine" if owned else "that engine"
    wanted = SwarmSettings(init=SwarmInit(settings.swarm_init))
    match plan_swarm(facts, wanted, Situation(whose, restartable=owned)):
        case Use(warning=warning):
            found = f"{facts.state}, a manager at {facts.node_address or '?'}"
            return _from_text(Fact.warning, "swarm", warning, "repair it") if warning else Fact.ok("swarm", found)
        case Initialise():
            return Fact.note("swarm", "none; a run begins one of this node alone", "SWARM_INIT=never forbids that")
        case SwarmWait(reason=reason):
            return Fact.warning("swarm", f"{facts.state}: {reason}", "wait for it, or look at that engine's log")
        case RepairAddress(address=address):
            return Fact.note("swarm", f"bound to {address}, which is gone; a run repairs it")
        case Refuse(error=error):
            return _from_text(Fact.failed, "swarm", str(error), "look at that engine's log")


def clock(asked: Asked) -> Fact:
    """Certificates, tokens and log times go by two clocks where the engine is on another machine."""
    ahead = asked.clock_seconds
    if ahead is None:
        return Fact.note("clock", "the engine does not tell its time")
    found = f"the engine's is {abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} ours"
    if abs(ahead) > _GOOD_CLOCK_SECONDS:
        return Fact.warning("clock", found, "set both machines' clocks by NTP")
    return Fact.ok("clock", found)


def ports(seen: Look, asked: Asked, settings: Settings) -> Iterator[Fact]:
    """Ports on the engine's machine; those of this one are facts of their own."""
    if seen.mode is Mode.DIND:
        return
    if "traefik" in settings.services:
        yield _engine_port(settings.http_port or 80, "http_port", asked, settings.stack)
        yield _engine_port(settings.https_port or 443, "https_port", asked, settings.stack)
    own = seen.facts.own_container.found
    for container in asked.containers:
        if own and container["Id"] == own:
            yield _app_outside(settings.port, container)


def _engine_port(port: int, setting: str, asked: Asked, stack: str) -> Fact:
    name = f"engine port {port}"
    for container in asked.containers:
        if any(each.get("PublicPort") == port for each in container.get("Ports") or ()):
            holder = next(iter(container.get("Names") or ()), container["Id"][:12]).lstrip("/")
            if (container.get("Labels") or {}).get(STACK) == stack:
                return Fact.ok(name, f"held by our container {holder!r}")
            mend = f"docker stop {holder}, or set {variable(setting)} to another port"
            return Fact.failed(name, f"{port} is taken by container {holder!r}", mend)
    for service in asked.services:
        if any(each.get("PublishedPort") == port for each in (service.get("Endpoint") or {}).get("Ports") or ()):
            holder = service["Spec"]["Name"]
            mend = f"stop publishing it there, or set {variable(setting)} to another port"
            return Fact.failed(name, f"{port} is taken by service {holder!r}", mend)
    return Fact.ok(name, "no container has it (other programs of that machine are not seen from here)")


def _app_outside(port: int, container: Mapping[str, Any]) -> Fact:
    name = "app from outside"
    published = [each for each in container.get("Ports") or () if each.get("PrivatePort") == port]
    places = sorted({f"{each.get('IP')}:{each['PublicPort']}" for each in published if each.get("PublicPort")})
    if places:
        return Fact.ok(name, f"port {port} is published at {', '.join(places)}")
    return Fact.note(
        name, f"port {port} of this container is not published: only Traefik leads to it", f"-p {port}:{port}"
    )


def disk(seen: Look) -> Fact:
    """Room for images and data, as far as it can be seen from here."""
    in_dind = seen.mode is Mode.DIND
    free = (seen.facts.data_root.free_bytes if in_dind else seen.layer_free_bytes) // _MIB
    place = f"for {seen.facts.data_root.path}" if in_dind else "on the disk below our root"
    found = f"{free} MiB free {place}"
    if in_dind and seen.facts.data_root.free_inodes < 10_000:
        return Fact.warning("engine disk", f"{found}, but few files can be made", _NO_DISK)
    if free < _LEAST_DISK_MIB:
        return Fact.failed("engine disk", found, _NO_DISK)
    return Fact.warning("engine disk", found, _NO_DISK) if free < _GOOD_DISK_MIB else Fact.ok("engine disk", found)


def keeping(seen: Look, paths: Paths) -> Fact:
    """Whether the state outlives the container."""
    if not seen.keeping:
        return Fact.ok("state is kept", f"{paths.state} outlives this container or process")
    return _from_text(Fact.warning, "state is kept", seen.keeping, "mount a volume there")
