"""Create or update without needless restarts: what to do about a stored service. Pure.

An unchanged wish must cause no call; what others added to the service stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.core.errors import ConfigurationError
from supervisor.engine.labels import INSTALL, SPEC_HASH, STACK
from supervisor.services.swarm.spec import APPLIED, ServiceBody

_RESTARTING = ("TaskTemplate", "EndpointSpec")
_MASK = "***"
# Of a service that is taken over they may hold a password.
_COMMANDS = (".Args", ".Command", ".Healthcheck.Test")
# They change with what they tell of.
_SILENT = (f"Labels.{SPEC_HASH}", f"Labels.{APPLIED}")


@dataclass(frozen=True)
class Create:
    """There is no such service: create it."""

    body: ServiceBody


@dataclass(frozen=True)
class Keep:
    """It is as it should be; no call is made. `foreign` are fields that somebody else changed, which stay."""

    foreign: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """Send `body` with `version`. `changes` are for the log: field and old and new value, secrets masked."""

    body: ServiceBody
    version: int
    changes: tuple[str, ...]
    restarts: bool


@dataclass(frozen=True)
class Foreign:
    """A service of that name belongs to somebody else; `owner` says whose, as far as its labels tell."""

    owner: str
    image: str
    created: str


Plan = Create | Keep | Update | Foreign


Key = Callable[[Any], str]
_MOUNTS = "TaskTemplate.ContainerSpec.Mounts"
# Lists that are sets of named things: how their items are told apart. Every other list is one value.
_LISTS: dict[str, Key] = {
    "TaskTemplate.ContainerSpec.Env": lambda item: str(item).partition("=")[0],
    _MOUNTS: lambda item: str(item["Target"]),
    "TaskTemplate.ContainerSpec.Secrets": lambda item: str(item["File"]["Name"]),
    "TaskTemplate.Networks": lambda item: str(item["Target"]),
    "TaskTemplate.Placement.Constraints": lambda item: re.split("[=!]=", str(item))[0].strip(),
    "EndpointSpec.Ports": lambda item: f"{item.get('TargetPort')}/{item.get('Protocol', 'tcp')}",
}


def plan_service(wanted: ServiceBody, stored: Mapping[str, Any] | None, *, adopt: bool = False) -> Plan:
    """What to do. `stored` is the answer of an inspect, None where there is no such service.

    With `adopt` a service without our labels is taken over: our fields are laid over it, what it publishes is closed,
    and its password leaves its environment. Raises ConfigurationError where its data would be hidden.
    """
    if stored is None:
        return Create(wanted)
    spec: ServiceBody = dict(stored["Spec"])
    ours = _is_ours(wanted, spec)
    if not ours and not adopt:
        return Foreign(_owner(spec), _image(spec), str(stored.get("CreatedAt", "")))
    _require_data_stays(wanted, spec, taken=not ours)
    merged = _merge(wanted, spec if ours else _without_theirs(wanted, spec), _applied(spec), "")
    changes = tuple(differences(spec, merged))
    if not changes:
        return Keep(tuple(_foreign(wanted, spec)))
    restarts = any(merged.get(part) != spec.get(part) for part in _RESTARTING)
    return Update(merged, int(stored["Version"]["Index"]), changes, restarts)


def _require_data_stays(wanted: ServiceBody, spec: Mapping[str, Any], *, taken: bool) -> None:
    """A volume over another mount hides what is in that one, and the service starts without its data."""
    there = {str(mount["Target"]).rstrip("/"): mount for mount in _at(spec, _MOUNTS)}
    for mount in _at(wanted, _MOUNTS):
        if mount["Type"] != "volume":
            continue
        has = there.get(str(mount["Target"]).rstrip("/"))
        if has is None and not taken:
            continue
        if has is None or (has.get("Type"), has.get("Source")) != ("volume", mount["Source"]):
            now = "nothing" if has is None else f"{has.get('Type')} {has.get('Source')!r}"
            raise ConfigurationError(
                f"cannot change service {spec['Name']!r}: it has {now} at {mount['Target']!r}, where it would get "
                f"volume {mount['Source']!r}, and start without its data; move the data into that volume and remove "
                f"that service, or choose another SUPERVISOR_STACK"
            )


def _without_theirs(wanted: ServiceBody, spec: ServiceBody) -> ServiceBody:
    """A service that is taken over, without what would contradict our fields instead of standing beside them."""
    task = dict(spec["TaskTemplate"])
    container = dict(task["ContainerSpec"])
    # Options of another log driver make ours refuse to start; attempts of another policy would run out.
    for whole in ("LogDriver", "RestartPolicy"):
        task.pop(whole, None)
    ours = wanted["TaskTemplate"]["ContainerSpec"]
    if "Args" in ours:
        container.pop("Command", None)
    if "Env" in container:
        container["Env"] = _without_rivals(container["Env"], ours.get("Env") or ())
    kinds = {mount["Target"]: mount["Type"] for mount in _at(wanted, _MOUNTS)}
    if "Mounts" in container:
        container["Mounts"] = [
            mount for mount in container["Mounts"] if kinds.get(mount["Target"], mount.get("Type")) == mount.get("Type")
        ]
    kept = {name: value for name, value in spec.items() if name != "EndpointSpec"}
    return {**kept, "TaskTemplate": {**task, "ContainerSpec": container}}


def _without_rivals(env: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Images refuse a setting given both as `X` and as the file `X_FILE`; ours stays, and no secret beside it."""
    names = {entry.partition("=")[0] for entry in ours}
    rivals = {name.removesuffix("_FILE") for name in names if name.endswith("_FILE")} | {
        f"{name}_FILE" for name in names
    }
    return [entry for entry in env if entry.partition("=")[0] not in rivals]


def _applied(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body that we sent last; empty where the label is gone or not ours to read."""
    try:
        applied = json.loads((spec.get("Labels") or {}).get(APPLIED, "{}"))
    except ValueError:
        return {}
    return applied if isinstance(applied, Mapping) else {}


def _is_ours(wanted: ServiceBody, spec: Mapping[str, Any]) -> bool:
    labels = spec.get("Labels") or {}
    return all(labels.get(label) == wanted["Labels"][label] for label in (INSTALL, STACK))


def _owner(spec: Mapping[str, Any]) -> str:
    labels = spec.get("Labels") or {}
    if INSTALL in labels:
        return f"install {labels[INSTALL]} of stack {labels.get(STACK, '?')!r}"
    return "nobody that its labels tell"


def _image(spec: Mapping[str, Any]) -> str:
    return str(spec.get("TaskTemplate", {}).get("ContainerSpec", {}).get("Image", "?"))


def _merge(wanted: Any, stored: Any, applied: Any, path: str) -> Any:
    """`stored` with our fields laid over it. Dropped is only what we applied, want no more, and nobody changed."""
    if isinstance(wanted, Mapping) and isinstance(stored, Mapping):
        before = applied if isinstance(applied, Mapping) else {}
        merged: dict[str, Any] = {}
        for name, value in stored.items():
            if name in wanted:
                merged[name] = _merge(wanted[name], value, before.get(name), _below(path, name))
            elif (rest := _take_back(value, before.get(name), _below(path, name))) is not None:
                merged[name] = rest
        return merged | {name: value for name, value in wanted.items() if name not in stored}
    key = _LISTS.get(path)
    if key is not None and isinstance(wanted, list) and isinstance(stored, list):
        return _merge_list(wanted, stored, applied if isinstance(applied, list) else [], key)
    return wanted


def _take_back(stored: Any, applied: Any, path: str) -> Any:
    """What is left of a stored field that we do not name any more; None for nothing."""
    if applied is None:
        return stored
    if stored == applied:
        return None
    if isinstance(stored, Mapping) and isinstance(applied, Mapping):
        return _merge({}, stored, applied, path) or None
    if path in _LISTS and isinstance(stored, list):
        return _merge([], stored, applied, path) or None
    return stored


def _merge_list(wanted: Sequence[Any], stored: Sequence[Any], applied: Sequence[Any], key: Key) -> list[Any]:
    """Each of our items over the stored one of the same key, in the stored order; then those that are new."""
    ours, before = ({key(item): item for item in items} for items in (wanted, applied))
    merged = []
    for item in stored:
        name = key(item)
        if name in ours:
            merged.append(_merge(ours.pop(name), item, before.get(name), ""))
        elif before.get(name) != item:
            merged.append(item)
    return [*merged, *ours.values()]


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _foreign(wanted: ServiceBody, stored: ServiceBody) -> Iterator[str]:
    """Items of our lists that somebody else added."""
    for place, key in _LISTS.items():
        names = {key(item) for item in _at(wanted, place)}
        for item in _at(stored, place):
            if key(item) not in names:
                yield f"{place}: {_show(place, item)}"


def _at(body: Any, place: str) -> list[Any]:
    for name in place.split("."):
        body = body.get(name) if isinstance(body, Mapping) else None
    return body if isinstance(body, list) else []


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """Each changed field with its old and new value. The values of environment variables are masked."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        names = dict.fromkeys([*before, *after])
        found: list[str] = []
        for name in names:
            found += differences(before.get(name), after.get(name), _below(path, name))
        return found
    key = _LISTS.get(path)
    if key is not None and isinstance(before, list | None) and isinstance(after, list | None):
        return _list_differences(before or [], after or [], key, path)
    if before == after or path in _SILENT:
        return []
    return [f"{path}: {_show(path, before)} -> {_show(path, after)}"]


def _list_differences(before: Sequence[Any], after: Sequence[Any], key: Key, path: str) -> list[str]:
    old, new = ({key(item): item for item in items} for items in (before, after))
    found: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            found.append(f"{path}[{name}]: {_show(path, old.get(name))} -> {_show(path, new.get(name))}")
    return found


def _show(path: str, value: Any) -> str:
    if value is None:
        return "nothing"
    if path.endswith(".Env"):
        return f"{str(value).partition('=')[0]}={_MASK}"
    if path.endswith(_COMMANDS):
        return _MASK
    return repr(value)
