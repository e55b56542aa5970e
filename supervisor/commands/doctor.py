"""`supervisor doctor`: what a run needs on this machine, fact by fact, each with its mend. Needs no supervisor.

Facts about folders and the settings are here, those about the machine in `doctor_machine`, those about programs in
`doctor_programs`, those about the front in `doctor_front`, those about the engine in `doctor_engine`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence

from supervisor.commands import doctor_engine, doctor_front, doctor_machine, doctor_programs
from supervisor.commands.fact import Fact, Grade
from supervisor.commands.load_settings import load
from supervisor.core.control_path import MAX_SOCKET_BYTES
from supervisor.core.errors import ConfigurationError, ExitCode
from supervisor.core.settings import Loaded, Settings
from supervisor.services.embedded.access import POSTGRES_UID, REDIS_UID, blocked_path, identity_for
from supervisor.state import Paths

_USAGE = "usage: supervisor doctor [--json]\n"
_RUNS_AS = {"postgres": POSTGRES_UID, "redis": REDIS_UID}


def main(argv: Sequence[str]) -> int:
    """Print the facts; 0 when none failed, 78 otherwise."""
    if list(argv) not in ([], ["--json"]):
        sys.stderr.write(_USAGE)
        return int(ExitCode.USAGE)
    facts = list(examine(os.environ))
    if argv:
        print(json.dumps([fact.as_dict() for fact in facts], indent=2, ensure_ascii=False))
    else:
        print(as_text(facts))
    return exit_code(facts)


def exit_code(facts: Sequence[Fact]) -> int:
    """What the facts mean for a run."""
    failed = any(fact.grade is Grade.FAILED for fact in facts)
    return int(ExitCode.CONFIGURATION if failed else ExitCode.OK)


def as_text(facts: Sequence[Fact]) -> str:
    """A table; what is to be done stands below its fact."""
    width = max(len(fact.name) for fact in facts)
    lines: list[str] = []
    for fact in facts:
        lines.append(f"{fact.grade.value:<8} {fact.name:<{width}}  {fact.found}")
        if fact.mend:
            lines.append(f"{'':8} {'':{width}}  -> {fact.mend}")
    counts = {grade: sum(fact.grade is grade for fact in facts) for grade in Grade}
    summary = ", ".join(f"{count} {grade.value}" for grade, count in counts.items() if count)
    return "\n".join([*lines, "", f"{len(facts)} facts: {summary}"])


def examine(environ: Mapping[str, str]) -> Iterator[Fact]:
    """All facts. Opens and closes ports, writes nothing, starts nothing; takes about a second, and some more
    where an engine does not answer."""
    loaded, settings_facts = _settings(environ)
    settings = loaded.settings if loaded is not None else Settings()
    paths = Paths.of(settings, dict(environ))
    yield from settings_facts
    yield doctor_machine.python()
    yield doctor_machine.reaping()
    yield _state_folder(paths)
    yield from _server_access(settings, paths)
    yield _socket_path(paths)
    yield doctor_machine.memory()
    yield doctor_machine.open_files()
    yield doctor_machine.disk(paths.state)
    yield doctor_machine.watches()
    yield from doctor_machine.ports(settings, running=doctor_machine.answers(paths.socket))
    yield from doctor_programs.examine(settings, environ)
    yield from doctor_front.examine(settings, environ)
    yield from doctor_engine.examine(settings, environ, paths)


def _settings(environ: Mapping[str, str]) -> tuple[Loaded | None, list[Fact]]:
    try:
        loaded = load({}, environ=environ)
    except ConfigurationError as error:
        found = "; ".join(line.strip(" -") for line in str(error).splitlines())
        return None, [Fact.failed("settings", found, "mend what is named; the rest is checked with the defaults")]
    set_here = ", ".join(sorted(set(loaded.origins.values()))) or "nothing set, all defaults"
    facts = [Fact.ok("settings", set_here)]
    facts += [Fact.warning("settings", text, "correct or unset it") for text in loaded.warnings]
    return loaded, facts


def _state_folder(paths: Paths) -> Fact:
    """Whether the state folder can be made, or written to where it is there."""
    folder = paths.state
    nearest = doctor_machine.nearest_there(folder)
    mend = f"make it writable for uid {os.geteuid()}, or set SUPERVISOR_STATE_DIR to a folder that is"
    if not nearest.is_dir():
        return Fact.failed("state folder", f"{str(nearest)!r} is no folder", "move it away or set SUPERVISOR_STATE_DIR")
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Fact.failed("state folder", f"cannot write to {str(nearest)!r}", mend)
    if os.statvfs(nearest).f_flag & os.ST_RDONLY:
        return Fact.failed("state folder", f"{str(nearest)!r} is on a read-only file system", mend)
    return Fact.ok("state folder", str(folder) if nearest == folder else f"{folder} (to be made)")


def _server_access(settings: Settings, paths: Paths) -> Iterator[Fact]:
    """As root, Postgres and Redis run as users of their own, who must get to their folders."""
    wanted = {
        "postgres": settings.database_url is None,
        "redis": settings.redis_url is None,
    }
    for service in settings.services:
        identity = identity_for(service, _RUNS_AS.get(service, 0), our_uid=os.geteuid())
        if identity is None or not wanted.get(service, False):
            continue
        blocked = blocked_path(paths.state, identity)
        if blocked:
            mend = "chmod o+x that folder, or set SUPERVISOR_STATE_DIR to one that all may pass"
            yield Fact.failed(f"{service}'s data", blocked, mend)
        else:
            yield Fact.ok(f"{service}'s data", f"uid {identity.uid} can get to {paths.state}")


def _socket_path(paths: Paths) -> Fact:
    length = len(os.fsencode(paths.socket))
    if length > MAX_SOCKET_BYTES:
        return Fact.failed(
            "control socket",
            f"{str(paths.socket)!r} has {length} bytes, the kernel takes {MAX_SOCKET_BYTES}",
            "set SUPERVISOR_SOCKET or SUPERVISOR_RUNTIME_DIR to a shorter path",
        )
    nearest = doctor_machine.nearest_there(paths.runtime)
    if not os.access(nearest, os.W_OK | os.X_OK):
        return Fact.failed(
            "control socket",
            f"cannot write to {str(nearest)!r}",
            f"make it writable for uid {os.geteuid()}, or set SUPERVISOR_RUNTIME_DIR",
        )
    if doctor_machine.answers(paths.socket):
        return Fact.note("control socket", f"a supervisor runs and answers on {paths.socket}")
    return Fact.ok("control socket", str(paths.socket))
