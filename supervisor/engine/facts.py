"""What is known before a mode is chosen (F1 to F18), as plain frozen values. No I/O, and no secret among them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from supervisor.core.mode import Mode

ENGINE_NAMES = frozenset({"dockerd", "containerd"})
SYS_ADMIN = "SYS_ADMIN"
NEEDED_CAPABILITIES = {
    SYS_ADMIN: 21,
    "NET_ADMIN": 12,
    "SYS_PTRACE": 19,
    "MKNOD": 27,
    "SYS_CHROOT": 18,
    "NET_RAW": 13,
    "DAC_OVERRIDE": 1,
    "SETUID": 7,
    "SETGID": 6,
    "SETPCAP": 8,
    "SETFCAP": 31,
}
"""The bits of linux/capability.h without which dockerd or runc fails. Not "all bits": full root short of
SYS_RESOURCE is met in practice and works."""


class Scheme(StrEnum):
    """How an engine is spoken to."""

    UNIX = "unix"
    TCP = "tcp"


class PathKind(StrEnum):
    """What is at the socket's path. To be known before a connect: a directory, a plain file and a dead socket
    all answer ECONNREFUSED."""

    ABSENT = "absent"
    SOCKET = "socket"
    DIRECTORY = "directory"
    FILE = "plain file"
    DANGLING_LINK = "dangling link"
    OTHER = "device or pipe"
    UNSEARCHABLE = "below a folder we may not search"


class Connected(StrEnum):
    """How a connect ended."""

    NOT_TRIED = "not tried"
    OK = "ok"
    ABSENT = "absent"
    REFUSED = "refused"
    DENIED = "denied"
    TIMEOUT = "timeout"
    TLS = "tls"
    """The handshake failed, or a file it needs is missing."""
    FAILED = "failed"


class Pinged(StrEnum):
    """How `GET /_ping` ended."""

    NOT_TRIED = "not tried"
    OK = "ok"
    HTTP_ERROR = "http error"
    GARBAGE = "garbage"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    """It hung up without an answer: a relay whose far end is gone, or an engine that ends."""


class PidFileState(StrEnum):
    """What a pid file proves; its mere existence proves nothing."""

    ABSENT = "absent"
    GARBAGE = "garbage"
    DEAD = "names no process"
    ZOMBIE = "names a zombie"
    STRANGER = "names another program"
    ENGINE = "names a live engine process"


class Probed(StrEnum):
    """How a functional probe ended."""

    OK = "ok"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Tls:
    """Whether and how a TCP endpoint is spoken to by TLS; `folder` has ca.pem, cert.pem and key.pem."""

    folder: str = ""
    verify: bool = True
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class EngineAddress:
    """An engine's address taken apart; `path` is of a unix socket, the others of TCP."""

    scheme: Scheme
    path: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None

    @property
    def url(self) -> str:
        """As DOCKER_HOST has it."""
        if self.scheme is Scheme.UNIX:
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True)
class Chosen:
    """F2: which endpoint, and who said so. With an `error` (E02 or E05 in `code`) there is no `endpoint`."""

    endpoint: EngineAddress | None
    source: str = "default"
    given: str = ""
    configured: bool = False
    """Somebody named an engine that is not at the default path: then none of ours is started in its stead."""
    code: str = ""
    error: str = ""


@dataclass(frozen=True)
class SocketPath:
    """F3 and F7: what is at the path. `mount` is the mount point it is or lies under, "" where that is `/`."""

    path: str
    kind: PathKind
    real_path: str = ""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    entries: int = 0
    mount: str = ""
    blocked_at: str = ""

    @property
    def is_mounted(self) -> bool:
        """Whether somebody put it there by a mount; a socket that was cannot be one our dockerd made."""
        return self.mount != ""

    @property
    def is_empty(self) -> bool:
        """A directory without entries, a file without bytes, a link to nothing."""
        match self.kind:
            case PathKind.DIRECTORY:
                return self.entries == 0
            case PathKind.FILE:
                return self.size == 0
            case _:
                return self.kind is PathKind.DANGLING_LINK


@dataclass(frozen=True)
class Process:
    """One process of /proc. `same_mounts`: whether its mount namespace is ours; None where we may not look."""

    pid: int
    comm: str
    state: str = "S"
    ppid: int = 0
    parent: str = ""
    start_ticks: int = 0
    age_seconds: float = 0.0
    exe: str = ""
    command: tuple[str, ...] = ()
    same_mounts: bool | None = None

    @property
    def is_alive(self) -> bool:
        """Zombies and the dead do not count: a pid file that names one wedges the next dockerd."""
        return self.state not in ("Z", "X", "x")

    @property
    def is_dockerd(self) -> bool:
        """By the kernel's name for it, 15 bytes of the program's."""
        return self.comm == "dockerd"

    def listens_elsewhere(self, path: str) -> bool:
        """Whether its own command line names addresses, `path` not among them (`fd://` may be any)."""
        hosts = _hosts(self.command)
        return bool(hosts) and not any(host.startswith("fd:") or host == f"unix://{path}" for host in hosts)


def _hosts(command: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for word, after in zip(command, (*command[1:], ""), strict=False):
        if word in ("-H", "--host"):
            found.append(after)
        elif word.startswith("--host="):
            found.append(word.partition("=")[2])
        elif word.startswith("-H") and len(word) > 2:
            found.append(word[2:].removeprefix("="))
    return found


@dataclass(frozen=True)
class Peer:
    """F5: who listens. pid 0 is a process outside our PID namespace, unix(7); over TCP it is found by its socket."""

    pid: int
    uid: int = 0
    process: Process | None = None


@dataclass(frozen=True)
class Connection:
    """F4: how the connect went, and who is at the other end (None where that cannot be known)."""

    result: Connected = Connected.NOT_TRIED
    detail: str = ""
    peer: Peer | None = None
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ping:
    """F6. The `Swarm` header exists on newer engines only."""

    result: Pinged = Pinged.NOT_TRIED
    status: int = 0
    api_version: str = ""
    swarm: str = ""
    detail: str = ""


@dataclass(frozen=True)
class PidFile:
    """F8."""

    path: str
    state: PidFileState
    pid: int = 0
    comm: str = ""


@dataclass(frozen=True)
class Probe:
    """F11: what a functional probe gave, and why."""

    result: Probed = Probed.UNKNOWN
    detail: str = ""


@dataclass(frozen=True)
class Privileges:
    """F10 and F11."""

    effective: int = 0
    seccomp: str = ""
    no_new_privileges: bool = False
    uid_map: str = ""
    mount: Probe = Probe()
    cgroup: Probe = Probe()
    nat: Probe = Probe()

    @property
    def missing(self) -> tuple[str, ...]:
        """Capabilities dockerd needs and we lack."""
        return tuple(name for name, bit in NEEDED_CAPABILITIES.items() if not self.effective >> bit & 1)

    @property
    def failed_probes(self) -> tuple[str, ...]:
        """What was tried and refused."""
        probes = {"mount a tmpfs": self.mount, "make a cgroup": self.cgroup, "read the nat table": self.nat}
        return tuple(f"{name}: {probe.detail}" for name, probe in probes.items() if probe.result is Probed.FAILED)

    @property
    def suffice(self) -> bool:
        """Whether a dockerd of our own is worth starting. An unwritable cgroup or a missing nat table is left to
        its preflight, which knows the mend (E21, E22)."""
        return not self.missing and self.mount.result is not Probed.FAILED


@dataclass(frozen=True)
class Cgroup:
    """F12. `version` is `v1`, `v2`, `hybrid` or `none`; `own_path` is `/` in a private cgroup namespace."""

    version: str = "none"
    read_only: bool = False
    own_path: str = ""
    controllers: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataRoot:
    """F14. `mount` is the mount point it lies on; free figures are of that file system."""

    path: str = ""
    mount: str = ""
    file_system: str = ""
    free_bytes: int = 0
    free_inodes: int = 0


@dataclass(frozen=True)
class EngineInfo:
    """F16: what `/info` and `/version` say; empty where they were not answered."""

    id: str = ""
    name: str = ""
    version: str = ""
    api_version: str = ""
    least_api_version: str = ""
    os_type: str = ""
    labels: tuple[str, ...] = ()
    root_dir: str = ""
    security_options: tuple[str, ...] = ()
    components: tuple[str, ...] = ()
    live_restore: bool = False
    swarm_state: str = ""
    swarm_manager: bool = False
    swarm_address: str = ""
    swarm_error: str = ""


@dataclass(frozen=True)
class OwnContainer:
    """F17: ids our container may have, and the one the engine knows as running us ("" where it knows none)."""

    candidates: tuple[str, ...] = ()
    found: str = ""
    stop_seconds: int | None = None
    """The container's own stop timeout where one is set."""


@dataclass(frozen=True)
class RuntimeRecord:
    """F18: written when we spawn a dockerd. A pid alone proves nothing: those of containers are reused at once."""

    pid: int
    start_ticks: int
    boot_id: str
    instance: str = ""
    data_root: str = ""
    socket_inode: int = 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RuntimeRecord:
        """Raises KeyError, TypeError or ValueError where it is no such record."""
        return cls(
            pid=int(values["pid"]),
            start_ticks=int(values["start_ticks"]),
            boot_id=str(values["boot_id"]),
            instance=str(values.get("instance", "")),
            data_root=str(values.get("data_root", "")),
            socket_inode=int(values.get("socket_inode", 0)),
        )


@dataclass(frozen=True)
class Self:
    """Who we are; `selinux` is whether it is enforced, `instance` the uuid of this install."""

    pid: int = 1
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    hostname: str = ""
    boot_id: str = ""
    selinux: bool = False
    instance: str = ""
    shares_host_pids: bool = False
    """F15."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything a decision rests on; `forced` is F1. Facts that were not looked at have their defaults."""

    forced: Mode | None = None
    chosen: Chosen
    socket: SocketPath | None = None
    connection: Connection = Connection()
    ping: Ping = Ping()
    pid_files: tuple[PidFile, ...] = ()
    processes: tuple[Process, ...] = ()
    privileges: Privileges = Privileges()
    cgroup: Cgroup = Cgroup()
    programs: dict[str, str] = field(default_factory=dict)
    """F13: paths of the programs found, by name."""
    data_root: DataRoot = DataRoot()
    engine: EngineInfo | None = None
    refusals: tuple[str, ...] = ()
    """Endpoints we need that answered 401, 403 or 405: a filtering proxy's."""
    own_container: OwnContainer = OwnContainer()
    record: RuntimeRecord | None = None
    us: Self = Self()
    unread: tuple[str, ...] = ()
    """Facts that could not be read, with the reason."""

    @property
    def dockerds(self) -> tuple[Process, ...]:
        """Live ones in our PID and mount namespaces that may open the socket asked for."""
        path = self.socket.path if self.socket is not None else ""
        return tuple(
            process
            for process in self.processes
            if process.is_dockerd and process.is_alive and _is_in_our_mounts(process, self.us)
            if not process.listens_elsewhere(path)
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready. Command lines are left out: what stands there is not ours to log."""
        values = asdict(self)
        for process in values["processes"]:
            process.pop("command")
        peer = (values["connection"] or {}).get("peer")
        if peer and peer["process"]:
            peer["process"].pop("command")
        return values


def _is_in_our_mounts(process: Process, us: Self) -> bool:
    """Where we may not look: another user's in our own PID namespace counts, one of the whole host's does not."""
    return process.same_mounts if process.same_mounts is not None else not us.shares_host_pids
