"""The ground a daemon stands on, made ready step by step: mounts, control groups, iptables, storage, network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio.to_thread

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd import cgroups, iptables, mounts, network_facts, storage
from supervisor.engine.dockerd.iptables import Choice, IptablesBackend, IptablesChoice
from supervisor.engine.dockerd.network_facts import NetworkFacts
from supervisor.engine.dockerd.places import Places
from supervisor.engine.dockerd.storage import StorageChoice
from supervisor.process.child import RunProgram

SECURITYFS = Path("/sys/kernel/security")
# Read by dockerd itself, and each of them would change what the configuration says.
_CLEARED = frozenset({"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"})
_KEPT = frozenset({"DOCKER_RAMDISK", "DOCKER_TMPDIR"})


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What was found and chosen; `env` is dockerd's whole environment, `used` whether the root had state before."""

    env: Mapping[str, str]
    storage: StorageChoice
    network: NetworkFacts
    iptables: Choice
    cgroup_parent: str | None
    used: bool
    warnings: tuple[str, ...]


class Preflight:
    """Idempotent; the second time costs milliseconds, as the iptables choice is kept."""

    def __init__(
        self,
        places: Places,
        *,
        run: RunProgram,
        environ: Mapping[str, str],
        backend: IptablesBackend | None = None,
        allow_layer: bool = False,
    ) -> None:
        self._places = places
        self._run = run
        self._environ = daemon_environ(environ)
        self._backend = backend
        self._allow_layer = allow_layer
        self._iptables: Choice | None = None

    async def prepare(self) -> Ground:
        """Do all steps in their order. Raises EngineError E21, E22 or E23."""
        warnings = share_mounts()
        _, parent = await cgroups.settle()
        if self._iptables is None:
            self._iptables = await IptablesChoice(self._run, self._environ).choose(self._backend)
        path = iptables.link_programs(self._iptables, self._places.programs, self._environ["PATH"])
        facts = await anyio.to_thread.run_sync(self._storage_facts)
        choice = storage.decide(facts, allow_layer=self._allow_layer)
        network = network_facts.read_facts()
        return Ground(
            env={**self._environ, "PATH": path},
            storage=choice,
            network=network,
            iptables=self._iptables,
            cgroup_parent=parent,
            used=bool(facts.prior),
            warnings=(*warnings, *choice.warnings, *network_warnings(network)),
        )

    def _storage_facts(self) -> storage.StorageFacts:
        root = self._places.data_root
        try:
            return storage.read_facts(root, mounts.read_mounts(), search_path=self._environ["PATH"])
        except OSError as error:
            raise EngineError(
                "E23", f"cannot read data root {str(root)!r}: {error.strerror}; look at its volume"
            ) from error


def daemon_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """dockerd's environment: nothing that overrides its configuration (DOCKER_DRIVER does, silently)."""
    kept = {
        name: value
        for name, value in environ.items()
        if name not in _CLEARED and (name in _KEPT or not name.startswith("DOCKER_"))
    }
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **kept, "container": "docker"}


def share_mounts() -> tuple[str, ...]:
    """Make `/` recursively shared and mount securityfs; what fails is a warning, as most containers do without."""
    warnings: list[str] = []
    try:
        mounts.mount("none", "/", "", flags=mounts.MS_REC | mounts.MS_SHARED)
    except OSError as error:
        warnings.append(f"cannot make the mounts shared ({error.strerror}): inner rshared volumes will fail")
    if SECURITYFS.is_dir() and not mounts.is_mount_point(SECURITYFS, mounts.read_mounts()):
        try:
            mounts.mount("none", SECURITYFS, "securityfs")
        except OSError as error:
            warnings.append(f"cannot mount securityfs ({error.strerror}): AppArmor is not detected")
    return tuple(warnings)


def network_warnings(network: NetworkFacts) -> tuple[str, ...]:
    """What inner containers will miss."""
    warnings: list[str] = []
    if not network.servers:
        warnings.append(
            "no name server is known that inner containers could reach (the resolver here is a loopback one): "
            "they get dockerd's public defaults; set 'dns' in daemon.json"
        )
    if network.pools.bridges is None:
        warnings.append("every address range for bridges is routed already: set 'default-address-pools' in daemon.json")
    return tuple(warnings)
