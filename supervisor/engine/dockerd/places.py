"""Where one daemon of ours keeps its things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import ConfigurationError

SOCKET_PATH_BYTES = 107  # sun_path, unix(7)
_LONGEST_SOCKET = "containerd/containerd.sock.ttrpc"


@dataclass(frozen=True, kw_only=True)
class Places:
    """All paths of one daemon. `runtime` is emptied with the container, `data_root` must outlive it.

    Raises ConfigurationError where a socket's path would be longer than the kernel takes.
    """

    runtime: Path
    data_root: Path
    socket: Path

    def __post_init__(self) -> None:
        for path in (self.socket, self.exec_root / _LONGEST_SOCKET):
            if len(bytes(path)) > SOCKET_PATH_BYTES:
                raise ConfigurationError(
                    f"cannot use socket path {str(path)!r}: it has more than {SOCKET_PATH_BYTES} bytes; "
                    f"choose a shorter SUPERVISOR_RUNTIME_DIR"
                )

    @property
    def exec_root(self) -> Path:
        """dockerd's and containerd's runtime state; its sockets and network namespaces."""
        return self.runtime / "docker"

    @property
    def pid_file(self) -> Path:
        """dockerd writes and removes it."""
        return self.runtime / "dockerd.pid"

    @property
    def containerd_pid_file(self) -> Path:
        """Written by dockerd for the containerd it starts; never by us: a newline in it is fatal to dockerd 20.10."""
        return self.exec_root / "containerd" / "containerd.pid"

    @property
    def config(self) -> Path:
        """The one generated configuration; also the evidence in a command line that a dockerd is this one."""
        return self.runtime / "dockerd.json"

    @property
    def record(self) -> Path:
        """What proves a running dockerd to be ours."""
        return self.runtime / "dockerd.record.json"

    @property
    def programs(self) -> Path:
        """Links that put the chosen iptables first on dockerd's PATH."""
        return self.runtime / "dockerd-programs"

    @property
    def lock(self) -> Path:
        """Held for as long as a supervisor uses the data root."""
        return self.data_root / ".supervisor.lock"

    @property
    def clean_stop(self) -> Path:
        """There exactly while the last daemon on this data root ended in order."""
        return self.data_root / ".supervisor-clean-stop"
