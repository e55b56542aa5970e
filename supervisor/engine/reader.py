"""Gathers the facts a mode is chosen by. Reads and asks, decides nothing and changes nothing; each fact has a limit."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from supervisor.core.mode import Mode
from supervisor.core.settings import Settings
from supervisor.engine import privileges
from supervisor.engine.dockerd.mounts import Mount, parse_mounts
from supervisor.engine.endpoint import Named, choose
from supervisor.engine.facts import (
    Cgroup,
    Chosen,
    Connection,
    DataRoot,
    EngineAddress,
    Facts,
    PathKind,
    PidFile,
    Ping,
    Pinged,
    Privileges,
    Process,
    RuntimeRecord,
    Scheme,
    Self,
    SocketPath,
)
from supervisor.engine.interview import Interview, interview
from supervisor.engine.own_container import Traces, local_addresses, mac_addresses
from supervisor.engine.processes import ProcessTable, read_record
from supervisor.engine.sockets import call, look
from supervisor.engine.transport import LIMIT_SECONDS

DEFAULT_SOCKET = "/var/run/docker.sock"
_CALL_SECONDS = 2 * LIMIT_SECONDS + 0.5  # connect and ping have a limit each
_INTERVIEW_SECONDS = 10.0  # some twenty requests of milliseconds; the first silent one ends it

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where everything is read, so that a test can show the reader a world of its own."""

    named: Named = field(default_factory=Named)
    forced: Mode | None = None
    default_socket: str = DEFAULT_SOCKET
    own_socket: str = "/run/supervisor/docker.sock"
    """Where a forced dind listens when the default path is somebody's mount: nothing can be bound over that."""
    config_folder: Path = Path("/root/.docker")
    pid_files: tuple[Path, ...] = ()
    record: Path | None = None
    data_root: Path = Path("/var/lib/docker")
    instance: str = ""
    """This install's uuid."""
    container_id: str = ""
    search_path: str | None = None
    """PATH for programs; None: our own."""
    places: privileges.Places = field(default_factory=privileges.Places)
    sys: Path = Path("/sys")
    limit_seconds: float = LIMIT_SECONDS

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str], runtime: Path) -> Sources:
        """As the settings say; `environ` gives HOME, DOCKER_CONFIG and PATH, which are the client's, not ours."""
        home = Path(environ.get("HOME") or "/root")
        return cls(
            named=Named(
                settings.docker_host, settings.docker_context, settings.docker_tls_verify, settings.docker_cert_path
            ),
            forced=None if settings.mode == "auto" else Mode(settings.mode),
            own_socket=str(runtime / "docker.sock"),
            config_folder=Path(environ.get("DOCKER_CONFIG") or home / ".docker"),
            pid_files=(Path("/var/run/docker.pid"), runtime / "dockerd.pid"),
            record=runtime / "dockerd.record.json",
            data_root=settings.docker_data_root,
            container_id=settings.container_id or "",
            search_path=environ.get("PATH"),
        )


@dataclass(frozen=True)
class _Local:
    """What needs no connection."""

    us: Self
    processes: tuple[Process, ...]
    pid_files: tuple[PidFile, ...]
    record: RuntimeRecord | None
    cgroup: Cgroup
    programs: dict[str, str]
    data_root: DataRoot


class FactReader:
    """Reads the facts anew on each call, but the privileges, which a process does not gain, only once."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._processes = ProcessTable(sources.places.proc)
        self._privileges: Privileges | None = None

    async def read(self) -> Facts:
        """All facts. Never raises; what could not be read has its default and a line in `unread`.

        Cancelling leaves worker threads that end by their own limits.
        """
        unread: list[str] = []
        chosen = await self._bounded("endpoint", self._choose, Chosen(None, code="E99", error="unread"), unread)
        no_mounts: list[Mount] = []
        table = await self._bounded("mount table", self._mounts, no_mounts, unread)
        no_path: tuple[Chosen, SocketPath | None] = (chosen, None)
        chosen, at = await self._bounded("socket path", lambda: self._look(no_path[0], table), no_path, unread)
        local = await self._bounded("processes and places", lambda: self._local(table), None, unread)
        if self._privileges is None:
            # Its mount probe alone may take the 2 s.
            self._privileges = await self._bounded(
                "privileges", lambda: privileges.read(self._sources.places), Privileges(), unread, seconds=5.0
            )
        facts = Facts(
            forced=self._sources.forced,
            chosen=chosen,
            socket=at,
            privileges=self._privileges,
            unread=tuple(unread),
            **(vars(local) if local is not None else {}),
        )
        return await self._asked(facts, table)

    async def _asked(self, facts: Facts, table: list[Mount]) -> Facts:
        """The facts with those of the engine itself, where there is something to connect to."""
        endpoint, at = facts.chosen.endpoint, facts.socket
        if endpoint is None or (at is not None and at.kind is not PathKind.SOCKET):
            return facts
        unread = list(facts.unread)
        silent = Ping(Pinged.TIMEOUT, detail="the name lookup, connect and ping together took too long")
        connection, ping = await self._bounded(
            "connect and ping", lambda: self._call(endpoint), (Connection(), silent), unread, seconds=_CALL_SECONDS
        )
        facts = replace(facts, connection=connection, ping=ping, unread=tuple(unread))
        if ping.result is not Pinged.OK:
            return facts
        asked = await self._bounded(
            "engine", lambda: self._interview(endpoint, table), Interview(silent_at="/info"), unread, _INTERVIEW_SECONDS
        )
        if asked.silent_at:
            # Its listener is up, its daemon is not: the same as a ping that is not answered.
            ping = replace(ping, result=Pinged.TIMEOUT, detail=f"it answered the ping, but not {asked.silent_at}")
        return replace(
            facts,
            ping=ping,
            engine=asked.engine,
            refusals=asked.refusals,
            own_container=asked.own_container,
            unread=tuple(unread),
        )

    async def _bounded(
        self, name: str, call: Callable[[], T], instead: T, unread: list[str], seconds: float = LIMIT_SECONDS
    ) -> T:
        """`call` in a worker thread, or `instead` when it takes too long or the system refuses it."""
        try:
            with anyio.fail_after(seconds):
                return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
        except TimeoutError:
            unread.append(f"{name}: not read within {seconds:g} s")
        except (OSError, ValueError, LookupError) as error:
            unread.append(f"{name}: {error}")
        return instead

    def _choose(self) -> Chosen:
        sources = self._sources
        return choose(sources.named, default_path=sources.default_socket, config_folder=sources.config_folder)

    def _mounts(self) -> list[Mount]:
        path = self._sources.places.proc / "self/mountinfo"
        return parse_mounts(path.read_text(errors="surrogateescape"))

    def _look(self, chosen: Chosen, table: list[Mount]) -> tuple[Chosen, SocketPath | None]:
        if chosen.endpoint is None or chosen.endpoint.scheme is not Scheme.UNIX:
            return chosen, None
        at = look(chosen.endpoint.path, table)
        if self._sources.forced is Mode.DIND and at.is_mounted and not chosen.configured:
            own = EngineAddress(Scheme.UNIX, path=self._sources.own_socket)
            source = f"dind was chosen, and {at.path} is a mount of {at.mount}"
            return replace(chosen, endpoint=own, source=source), look(own.path, table)
        return chosen, at

    def _local(self, table: list[Mount]) -> _Local:
        sources = self._sources
        return _Local(
            us=self._us(),
            processes=self._processes.engines(),
            pid_files=tuple(self._processes.pid_file(path) for path in sources.pid_files),
            record=read_record(sources.record),
            cgroup=privileges.cgroup(sources.places, table),
            programs=privileges.programs(sources.search_path),
            data_root=privileges.data_root(sources.data_root, table),
        )

    def _us(self) -> Self:
        return Self(
            pid=os.getpid(),
            uid=os.geteuid(),
            gid=os.getegid(),
            groups=tuple(sorted(os.getgroups())),
            hostname=socket.gethostname(),
            boot_id=self._text(self._sources.places.proc / "sys/kernel/random/boot_id").strip(),
            selinux=self._text(self._sources.sys / "fs/selinux/enforce").strip() == "1",
            instance=self._sources.instance,
            shares_host_pids=self._processes.shares_host_pids(os.getpid()),
        )

    def _call(self, endpoint: EngineAddress) -> tuple[Connection, Ping]:
        return call(
            endpoint,
            process=self._processes.read,
            listener=lambda _, port: self._processes.listener(self._processes.listening_inodes(port)),
            limit_seconds=self._sources.limit_seconds,
        )

    def _interview(self, endpoint: EngineAddress, table: list[Mount]) -> Interview:
        until = time.monotonic() + _INTERVIEW_SECONDS
        return interview(endpoint, self._traces(table), until=until, limit_seconds=self._sources.limit_seconds)

    def _traces(self, table: list[Mount]) -> Traces:
        proc = self._sources.places.proc
        return Traces(
            named=self._sources.container_id,
            mounts=tuple(table),
            cgroup=self._text(proc / "self/cgroup"),
            hostname=socket.gethostname(),
            addresses=local_addresses(self._text(proc / "net/fib_trie")),
            mac_addresses=mac_addresses([self._text(path) for path in self._sources.sys.glob("class/net/*/address")]),
        )

    @staticmethod
    def _text(path: Path) -> str:
        try:
            return path.read_text(errors="replace")
        except OSError:
            return ""
