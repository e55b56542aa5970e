"""Where the private engine keeps everything, and what of this machine it is made from. Touches nothing."""

from __future__ import annotations

import hashlib
import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CAP_SYS_RESOURCE = 24  # linux/capability.h
_MAX_SOCKET_BYTES = 107  # sockaddr_un.sun_path is 108 with its closing zero, unix(7)


class EngineRigError(RuntimeError):
    """No engine for the tests, with what to do about it."""


@dataclass(frozen=True)
class Places:
    """One folder below the cache folder; two of them never share a bridge, a cgroup or a socket."""

    folder: Path

    def __post_init__(self) -> None:
        if len(os.fsencode(self.socket)) > _MAX_SOCKET_BYTES:
            raise EngineRigError(
                f"cannot put the engine below {str(self.folder)!r}: the path of its socket would be longer than "
                f"{_MAX_SOCKET_BYTES} bytes; set XDG_CACHE_HOME to a shorter folder"
            )

    @property
    def socket(self) -> Path:
        return self.folder / "docker.sock"

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid_file(self) -> Path:
        return self.folder / "dockerd.pid"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def settings(self) -> Path:
        """An own daemon.json: the machine's must not be read."""
        return self.folder / "daemon.json"

    @property
    def cli_settings(self) -> Path:
        """An own DOCKER_CONFIG: contexts, proxies and logins of the user stay out."""
        return self.folder / "cli"

    @property
    def networks(self) -> Path:
        """Docker's database of the networks that are not Swarm's."""
        return self.data / "network/files/local-kv.db"

    @property
    def record(self) -> Path:
        return self.folder / "keeper.json"

    @property
    def users(self) -> Path:
        """Locked shared by every test run that uses the engine; the kernel lets go for those that crash."""
        return self.folder / "users"

    @property
    def log(self) -> Path:
        return self.folder / "engine.log"

    @property
    def digest(self) -> str:
        return hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:8]

    @property
    def bridge(self) -> str:
        return f"svt{self.digest}"

    @property
    def cgroup(self) -> str:
        return f"/supervisor-test-{self.digest}"


def cache_folder(environ: Mapping[str, str], *, root: bool) -> Path:
    """Kept between runs."""
    if environ.get("XDG_CACHE_HOME"):
        return Path(environ["XDG_CACHE_HOME"]) / "container-supervisor"
    if root:
        return Path("/var/cache/container-supervisor")
    return Path(environ.get("HOME") or "/tmp") / ".cache" / "container-supervisor"


def here() -> Places:
    return Places(cache_folder(os.environ, root=os.geteuid() == 0) / "engine")


@dataclass(frozen=True)
class Addresses:
    """What the engine gives out: its bridge, and a pool for the networks that tests make."""

    network: ipaddress.IPv4Network

    @property
    def bridge(self) -> ipaddress.IPv4Interface:
        subnet = next(self.network.subnets(prefixlen_diff=2))
        return ipaddress.IPv4Interface(f"{subnet[1]}/{subnet.prefixlen}")

    @property
    def pool(self) -> str:
        _, upper = self.network.subnets()
        return f"base={upper},size={min(self.network.prefixlen + 8, 28)}"


def free_network(taken: Iterable[ipaddress.IPv4Network], wish: str = "", *, digest: str = "0") -> ipaddress.IPv4Network:
    """`wish`, else a /16 that no route covers; `digest` says where to begin, so that two who start at once differ."""
    if wish:
        return ipaddress.IPv4Network(wish)
    blocked = list(taken)
    for step in range(16):
        network = ipaddress.IPv4Network(f"172.{31 - (int(digest, 16) + step) % 16}.0.0/16")
        if not any(network.overlaps(each) for each in blocked):
            return network
    raise EngineRigError(
        "cannot choose addresses for the engine: every network of 172.16.0.0/12 is routed here; "
        "set SUPERVISOR_TEST_NETWORK to one that is free, for instance 10.213.0.0/16"
    )


def routed_networks(table: str) -> list[ipaddress.IPv4Network]:
    """Of the text of /proc/net/route, the default route left out."""
    networks = []
    for line in table.splitlines()[1:]:
        words = line.split()
        address, mask = (int.from_bytes(bytes.fromhex(words[column]), "little") for column in (1, 7))
        if mask:
            networks.append(ipaddress.IPv4Network((address, bin(mask).count("1"))))
    return networks


def default_interface(table: str) -> str | None:
    """Of the text of /proc/net/route."""
    return next(
        (words[0] for words in map(str.split, table.splitlines()[1:]) if words[1] == words[7] == "00000000"), None
    )


def lacks_capability(number: int, status: str) -> bool:
    """Of the text of /proc/self/status: the bounding set is what no process below can get back."""
    bounding = next(line.split()[1] for line in status.splitlines() if line.startswith("CapBnd:"))
    return not int(bounding, 16) >> number & 1


def dockerd_argv(places: Places, addresses: Addresses, *, mtu: int, wrap_runtime: bool) -> list[str]:
    """Everything of its own: nothing is shared with another engine on this machine."""
    argv = [
        "dockerd",
        f"--host={places.host}",
        f"--config-file={places.settings}",
        f"--data-root={places.data}",
        f"--exec-root={places.run}",
        f"--pidfile={places.pid_file}",
        f"--bridge={places.bridge}",
        f"--default-address-pool={addresses.pool}",
        f"--mtu={mtu}",
        f"--cgroup-parent={places.cgroup}",
        # Below systemd the default driver would want a slice for the parent.
        "--exec-opt=native.cgroupdriver=cgroupfs",
        "--group=root",
        "--log-level=warn",
        "--shutdown-timeout=10",
    ]
    if wrap_runtime:
        wrapper = REPOSITORY / "tests" / "engine_rig" / "runc_without_sys_resource"
        argv += [f"--add-runtime=without-sys-resource={wrapper}", "--default-runtime=without-sys-resource"]
    return argv
