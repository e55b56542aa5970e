"""The decision table, rows 3 to 33: first match wins. Pure; the rows' numbers go into the log and the tests.

The texts of its errors are in `mode_errors`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from supervisor.core.errors import EngineError
from supervisor.core.mode import Mode, Owner
from supervisor.engine import labels, mode_errors
from supervisor.engine.decision import Cleanup, CleanupKind, Decision, Wait
from supervisor.engine.facts import Connected, EngineInfo, Facts, PathKind, Pinged, Process, SocketPath

HOST_SECONDS = 60.0
"""How long an engine that is not ours is waited for: its machine may be booting."""
START_SECONDS = 600.0
"""How long a dockerd that listens or runs may take to serve: it loads its containers first."""
_FILTERED = frozenset({401, 403, 405})
_SERVER_ERRORS = range(500, 600)
_SOCKET_ACTIVATORS = frozenset({"systemd", "init"})


class Table:
    """The rows over one set of facts. Every method of a group of rows gives an outcome or raises EngineError."""

    def __init__(self, facts: Facts, waited_seconds: float) -> None:
        self.facts = facts
        self.waited = waited_seconds
        self.forced = facts.forced

    def outcome(self) -> Decision | Wait:
        """The first match."""
        if self.facts.chosen.endpoint is None:  # rows 3 and 8
            raise mode_errors.bad_endpoint(self.facts)
        if mode_errors.is_tcp(self.facts.chosen.endpoint):
            return self._across_tcp()
        at = self.facts.socket
        if at is None:
            raise mode_errors.unclassified(self.facts)
        match at.kind:
            case PathKind.ABSENT:
                return self._absent(at)
            case PathKind.SOCKET:
                return self._socket(at)
            case PathKind.UNSEARCHABLE:
                raise mode_errors.denied(self.facts, at)
            case _:
                return self._no_socket(at)

    # TCP: rows 4 to 6

    def _across_tcp(self) -> Decision | Wait:
        facts = self.facts
        if mode_errors.is_tls_mistake(facts):
            raise mode_errors.tls(facts)
        if facts.ping.result is Pinged.OK:
            engine = self._usable()
            if self._is_proved_ours(engine):
                return self._decision(4, Mode.DIND, "the engine configured is the one we started", owner=Owner.OWN)
            if self._is_local(self._engine_process()):
                reason = "the engine configured runs in our own namespaces, started by something else"
                return self._decision(4, Mode.DIND, reason, owner=Owner.FOREIGN)
            return self._elsewhere(5)
        if self.forced is Mode.DIND:
            raise mode_errors.forced_dind_beside_remote(facts)
        self._raise_for_a_wrong_answer()
        return self._wait(6, HOST_SECONDS, mode_errors.unreachable(facts, self.waited))

    # Nothing at the path: rows 9 to 12

    def _absent(self, at: SocketPath) -> Decision | Wait:
        facts = self.facts
        if self.forced is Mode.SOCKET:
            raise mode_errors.forced_without_socket(facts)
        if facts.dockerds:
            return self._wait(9, HOST_SECONDS, mode_errors.never_opened(facts, facts.dockerds[0], self.waited))
        if not self._may_start:
            return self._wait(7, HOST_SECONDS, mode_errors.unreachable(facts, self.waited))
        return self._start(12, "no socket is mounted, and the privileges for an engine of our own are there")

    # Something else at the path: rows 13 to 16

    def _no_socket(self, at: SocketPath) -> Decision:
        if at.kind is PathKind.DIRECTORY and at.is_mounted:
            raise mode_errors.mounted_directory(at)
        if at.is_mounted or not at.is_empty or not self._is_capable:
            raise mode_errors.no_socket_there(at)
        reason = f"an empty {at.kind} in the socket's place is removed, the privileges are there"
        if at.kind is PathKind.DIRECTORY:
            return self._start(14, reason, Cleanup(CleanupKind.REMOVE_EMPTY_DIRECTORY, at.path))
        return self._start(15, reason, Cleanup(CleanupKind.UNLINK_FILE, at.path))

    # A socket: rows 17 to 22

    def _socket(self, at: SocketPath) -> Decision | Wait:
        match self.facts.connection.result:
            case Connected.OK:
                return self._answering() if self.facts.ping.result is Pinged.OK else self._silent()
            case Connected.DENIED:
                raise mode_errors.denied(self.facts, at)
            case Connected.REFUSED:
                return self._refused(at)
            case Connected.ABSENT:  # it went between the look and the connect
                return self._absent(replace(at, kind=PathKind.ABSENT))
            case Connected.TIMEOUT:  # its queue is full: nobody accepts
                return self._wait(22, HOST_SECONDS, mode_errors.hangs(self.facts, self.waited))
            case _:
                raise mode_errors.unclassified(self.facts)

    def _refused(self, at: SocketPath) -> Decision | Wait:
        facts = self.facts
        if at.is_mounted:
            return self._wait(18, HOST_SECONDS, mode_errors.refuses(at, self.waited))
        if facts.dockerds:
            return self._starting(19, facts.dockerds[0], mode_errors.never_opened)
        if not self._may_start:
            return self._wait(20, HOST_SECONDS, mode_errors.unreachable(facts, self.waited))
        reason = "the socket is a dead leftover, and the privileges for an engine of our own are there"
        return self._start(20, reason, Cleanup(CleanupKind.UNLINK_STALE_SOCKET, at.path))

    def _silent(self) -> Decision | Wait:
        facts, peer = self.facts, self.facts.connection.peer
        self._raise_for_a_wrong_answer()
        if peer is not None and peer.process is not None and peer.process.is_dockerd:
            return self._starting(21, peer.process, lambda facts, _, waited: mode_errors.hangs(facts, waited))
        return self._wait(22, HOST_SECONDS, mode_errors.hangs(facts, self.waited))

    def _starting(
        self, row: int, dockerd: Process, error: Callable[[Facts, Process, float], EngineError]
    ) -> Decision | Wait:
        """A dockerd that runs but does not serve yet. One of ours that never does is replaced, once."""
        ours = self._is_recorded(dockerd)
        if self.waited < START_SECONDS or not ours:
            return self._wait(row, START_SECONDS, error(self.facts, dockerd, self.waited))
        path = self.facts.socket.path if self.facts.socket is not None else ""
        return self._decision(
            row,
            Mode.DIND,
            f"the engine we started was silent for {self.waited:.0f} s and is replaced",
            owner=Owner.OWN,
            start_engine=True,
            cleanup=(
                Cleanup(CleanupKind.KILL_SILENT_ENGINE, pid=dockerd.pid),
                Cleanup(CleanupKind.UNLINK_STALE_SOCKET, path),
            ),
        )

    # An engine that serves: rows 23 to 32

    def _answering(self) -> Decision:
        facts, peer = self.facts, self.facts.connection.peer
        engine = self._usable()
        if peer is None:
            raise mode_errors.unclassified(facts)
        if peer.pid == 0:
            return self._elsewhere(26 if facts.own_container.found else 27)
        if self._is_proved_ours(engine):
            return self._decision(29, Mode.DIND, "the engine is the one we started; it is adopted", owner=Owner.OWN)
        process = self._engine_process()
        if process is None:
            return self._elsewhere(31)
        if not self._is_local(process):
            return self._elsewhere(30)
        reason = f"dockerd runs in our own namespaces, started by {process.parent or 'something else'}"
        return self._decision(32, Mode.DIND, reason, owner=Owner.FOREIGN)

    def _usable(self) -> EngineInfo:
        """Rows 23 to 25."""
        facts, engine = self.facts, self.facts.engine
        if engine is None or not (engine.os_type or engine.api_version):
            raise mode_errors.filtered(facts) if facts.refusals else mode_errors.not_docker(facts)
        if engine.os_type not in ("linux", "") or any("podman" in part.lower() for part in engine.components):
            raise mode_errors.not_docker(facts)
        if any("rootless" in option for option in engine.security_options):
            raise mode_errors.rootless(facts)
        newest, least = _version(engine.api_version), _version(engine.least_api_version)
        if (newest and newest < mode_errors.LEAST_API) or (least and least[0] > mode_errors.LEAST_API[0]):
            raise mode_errors.wrong_api(facts, engine)
        return engine

    def _raise_for_a_wrong_answer(self) -> None:
        """Something answered that no waiting makes an engine."""
        ping = self.facts.ping
        if ping.result is Pinged.GARBAGE:
            raise mode_errors.not_docker(self.facts)
        if ping.result is Pinged.HTTP_ERROR:
            if ping.status in _FILTERED:
                raise mode_errors.filtered(self.facts)
            if ping.status not in _SERVER_ERRORS:
                raise mode_errors.not_docker(self.facts)

    def _elsewhere(self, row: int) -> Decision:
        """Rows 5, 26, 27, 30, 31, after row 28: it runs us, or it is somebody else's."""
        facts = self.facts
        if facts.refusals:
            raise mode_errors.filtered(facts)
        if facts.own_container.found:
            return self._decision(
                row,
                Mode.SOCKET,
                f"the engine at {mode_errors.endpoint_text(facts)} runs our own container",
                own_container=facts.own_container.found,
                stop_seconds=facts.own_container.stop_seconds,
            )
        reason = (
            f"the engine at {mode_errors.endpoint_text(facts)} is not in our namespaces and does not know our container"
        )
        return self._decision(row, Mode.REMOTE, reason)

    # What the rows ask

    @property
    def _may_start(self) -> bool:
        """Where an engine was named (an address, or a mode that has one), none of ours is started in its stead."""
        if self.forced is not None:
            return self.forced is Mode.DIND
        return not self.facts.chosen.configured

    @property
    def _is_capable(self) -> bool:
        return self._may_start and self.facts.privileges.suffice and "dockerd" in self.facts.programs

    def _start(self, row: int, reason: str, *cleanup: Cleanup) -> Decision:
        """Rows 10 and 11, then an engine of our own."""
        if not self.facts.privileges.suffice:
            raise mode_errors.no_engine(self.facts)
        if "dockerd" not in self.facts.programs:
            raise mode_errors.no_dockerd(self.facts)
        return self._decision(row, Mode.DIND, reason, owner=Owner.OWN, start_engine=True, cleanup=cleanup)

    def _engine_process(self) -> Process | None:
        """The dockerd behind the socket. A socket that systemd opened for it names systemd's pid."""
        peer = self.facts.connection.peer
        process = peer.process if peer is not None else None
        if process is None or process.is_dockerd:
            return process
        live = [one for one in self.facts.processes if one.is_dockerd and one.is_alive]
        return next(iter(live), None) if process.comm in _SOCKET_ACTIVATORS else None

    def _is_local(self, process: Process | None) -> bool:
        """Whether it shares our mount namespace; where we may not look, its own name for the machine decides."""
        if process is None:
            return False
        if process.same_mounts is not None:
            return process.same_mounts
        name = self.facts.engine.name if self.facts.engine is not None else ""
        return not self.facts.own_container.found and name != "" and name == self.facts.us.hostname

    def _is_recorded(self, process: Process | None) -> bool:
        """Pid, start and boot together; a pid alone is reused at once in a container."""
        record, us = self.facts.record, self.facts.us
        if record is None or process is None:
            return False
        return (record.pid, record.start_ticks, record.boot_id) == (process.pid, process.start_ticks, us.boot_id)

    def _is_proved_ours(self, engine: EngineInfo) -> bool:
        """By our record, by our label in its own answer, or as our child."""
        peer, us = self.facts.connection.peer, self.facts.us
        if peer is None:
            return False
        instances = {us.instance, self.facts.record.instance if self.facts.record is not None else ""} - {""}
        if any(f"{labels.INSTALL}={instance}" in engine.labels for instance in instances):
            return True
        process = peer.process
        is_child = process is not None and process.is_dockerd and process.ppid == us.pid
        return is_child or self._is_recorded(process)

    def _wait(self, row: int, seconds: float, error: EngineError) -> Wait:
        """Wait, or the error once that took too long."""
        if self.waited >= seconds:
            raise error
        return Wait(row, seconds, error)

    def _decision(
        self,
        row: int,
        mode: Mode,
        reason: str,
        *,
        owner: Owner | None = None,
        start_engine: bool = False,
        cleanup: tuple[Cleanup, ...] = (),
        own_container: str = "",
        stop_seconds: int | None = None,
    ) -> Decision:
        return Decision(
            mode=mode,
            row=row,
            reason=reason,
            owner=owner,
            endpoint=self.facts.chosen.endpoint,
            start_engine=start_engine,
            cleanup=cleanup,
            own_container=own_container,
            stop_seconds=stop_seconds,
        )


def _version(text: str) -> tuple[int, ...]:
    """An API version; empty where it is none."""
    parts = text.split(".")
    return tuple(int(part) for part in parts) if all(part.isdecimal() and part.isascii() for part in parts) else ()
