"""The one configuration file that dockerd gets: ours, with a user's daemon.json worked in.

No flag beside it: the same key in both is fatal to dockerd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.errors import EngineError
from supervisor.engine.dockerd.network_facts import SUBNET_BITS, NetworkFacts
from supervisor.engine.dockerd.places import Places
from supervisor.engine.labels import INSTALL
from supervisor.store.files import write_atomic

Version = tuple[int, int]
UNKNOWN: Version = (0, 0)
VALIDATES: Version = (23, 0)
"""The first dockerd with `--validate`."""
NETWORK_OPTIONS: Version = (24, 0)
"""The first one that knows `default-network-opts`; to others an unknown key is fatal."""
USUAL_MTU = 1500
LOG_SIZE = "10m"
LOG_FILES = "3"
# Other names of keys that are ours, and what would undo them.
_NEVER = {
    "graph": "the data root is ours",
    "firewall-backend": "Swarm needs the iptables one",
    "containerd": "dockerd starts its own",
    "containerd-namespace": "dockerd starts its own",
    "group": "the socket belongs to root",
    "userns-remap": "it changes the data root",
    "bridge": "the default bridge is needed",
    "tls": "there is no TCP listener",
    "tlsverify": "there is no TCP listener",
}


@dataclass(frozen=True, kw_only=True)
class ConfigInput:
    """All that the configuration follows from."""

    places: Places
    install_uuid: str
    storage_driver: str
    network: NetworkFacts
    shutdown_seconds: int
    version: Version = UNKNOWN
    ipv6_rules: bool = True
    cgroup_parent: str | None = None


@dataclass(frozen=True)
class Config:
    """The file's text, and what of the user's was not taken, one line each."""

    text: str
    notes: tuple[str, ...]


Values = Mapping[str, object]


def label_of(install_uuid: str) -> str:
    """The label by which a daemon proves itself over any transport."""
    return f"{INSTALL}={install_uuid}"


def fixed_values(given: ConfigInput) -> dict[str, object]:
    """Keys that are ours alone."""
    places = given.places
    values: dict[str, object] = {
        "hosts": [f"unix://{places.socket}"],
        "pidfile": str(places.pid_file),
        "exec-root": str(places.exec_root),
        "data-root": str(places.data_root),
        "live-restore": False,
        "iptables": True,
        "storage-driver": given.storage_driver,
    }
    if not given.ipv6_rules:
        values["ip6tables"] = False
    if given.cgroup_parent is not None:
        values["cgroup-parent"] = given.cgroup_parent
    return values


def default_values(given: ConfigInput) -> dict[str, object]:
    """Keys that a user may set otherwise."""
    network = given.network
    values: dict[str, object] = {
        "log-driver": "json-file",
        "shutdown-timeout": given.shutdown_seconds,
    }
    if network.mtu is not None:
        values["mtu"] = network.mtu
        if network.mtu != USUAL_MTU and given.version >= NETWORK_OPTIONS:
            # `mtu` is for the default bridge only.
            values["default-network-opts"] = {"bridge": {"com.docker.network.driver.mtu": str(network.mtu)}}
    if network.servers:
        values["dns"] = list(network.servers)
    if network.pools.bridges is not None:
        values["default-address-pools"] = [{"base": str(network.pools.bridges), "size": SUBNET_BITS}]
    return values


def build(given: ConfigInput, user: Values) -> Config:
    """Merge: ours wins where it must, the user's elsewhere, labels and features from both."""
    fixed = fixed_values(given)
    notes = [f"'{key}' in daemon.json is left out: {why}" for key, why in _NEVER.items() if key in user]
    notes += [
        f"'{key}' in daemon.json is {json.dumps(user[key])}, {json.dumps(value)} is used"
        for key, value in fixed.items()
        if key in user and user[key] != value
    ]
    merged: dict[str, object] = {**default_values(given), **_without(user, {*_NEVER, *fixed}), **fixed}
    merged.update(_joined(given, user))
    if merged["log-driver"] in ("json-file", "local") and "log-opts" not in user:
        merged["log-opts"] = {"max-size": LOG_SIZE, "max-file": LOG_FILES}
    return Config(json.dumps(merged, indent=2, sort_keys=True) + "\n", tuple(notes))


def _without(values: Values, names: set[str]) -> dict[str, object]:
    return {key: value for key, value in values.items() if key not in names}


def _joined(given: ConfigInput, user: Values) -> dict[str, object]:
    """Keys that hold something of both. The image store is named, as engines from 29 on would choose another."""
    labels, features = user.get("labels"), user.get("features")
    others = (
        [str(each) for each in labels if not str(each).startswith(f"{INSTALL}=")] if isinstance(labels, list) else []
    )
    chosen = dict(features) if isinstance(features, Mapping) else {}
    return {
        "labels": [*others, label_of(given.install_uuid)],
        "features": {**chosen, "containerd-snapshotter": False},
    }


def read_user_config(path: Path) -> dict[str, object]:
    """A user's daemon.json; empty where there is none. Raises E25 where it is no JSON object."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, str(error)) from error
    if not text.strip():
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise _unusable(path, str(error)) from error
    if not isinstance(values, dict):
        raise _unusable(path, "it is no JSON object")
    return values


def _unusable(path: Path, why: str) -> EngineError:
    return EngineError("E25", f"cannot use {str(path)!r}: {why}; correct it, or remove it")


def parse_version(text: str) -> Version:
    """`Docker version 20.10.24+dfsg1, build 5d6db84`; (0, 0) for what says no version."""
    match = re.search(r"version (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else UNKNOWN


def judge_validation(status: int, said: str, *, user_config: Path) -> None:
    """What `dockerd --validate` found. Raises E25 with dockerd's own words where it refuses the configuration."""
    if status != 0:
        raise _unusable(user_config, f"dockerd refuses the configuration it is part of: {said or f'status {status}'}")


def write(path: Path, text: str) -> None:
    """Replace the file in one step. Raises E25 where it cannot be written."""
    try:
        write_atomic(path, text, durable=False)
    except OSError as error:
        raise EngineError(
            "E25", f"cannot write {str(path)!r}: {error.strerror}; make its folder writable, it is the runtime folder"
        ) from error
