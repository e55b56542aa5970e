"""What settings are called: variables, options, and which names under our prefix are none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_MOST_NAMED = 20
PREFIX = "SUPERVISOR_"
# Settings with an option of their own on the command line of `run`; every other one goes by `--set NAME=VALUE`.
OPTIONS = ("mode", "app_dir", "app_host", "port", "state_dir", "runtime_dir", "log_format")
BUILT_IN = ("postgres", "redis", "traefik")
"""The services that are there without any table."""
TABLES = frozenset({"user_services", "apps", "bindings"})
"""Settings that are tables of supervisor.toml, and have no variable."""
# Given to children or set by other software under our prefix; none of them is a setting.
NOT_SETTINGS = frozenset(
    {
        "SUPERVISOR_SPAWN",
        "SUPERVISOR_GENERATION",
        "SUPERVISOR_PUBLIC_PORT",
        "SUPERVISOR_OVERLAPPING",
        "SUPERVISOR_READY_FD",
        "SUPERVISOR_RELEASE",
        "SUPERVISOR_DOCKER_MODE",
        "SUPERVISOR_ENABLED",
        "SUPERVISOR_SERVER_URL",
        "SUPERVISOR_PROCESS_NAME",
        "SUPERVISOR_GROUP_NAME",
        "SUPERVISOR_CONFIG",
        "SUPERVISOR_STATE_PASSPHRASE_FILE",
    }
)


def variable(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def argument_name(field: str) -> str:
    """How a setting was given on the command line."""
    if field == "app_command":
        return "the command behind --"
    return f"--{field.replace('_', '-')}" if field in OPTIONS else f"--set {field}"


def did_you_mean(name: str, known: Sequence[str] | Mapping[str, Any] | set[str] | frozenset[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known names, empty when none is near."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_names(
    names: Iterable[str], known: Sequence[str] | set[str] | frozenset[str], *, quoted: bool = True
) -> list[str]:
    """Each name with the one that was meant; of very many only the first, as looking for those takes its time."""
    all_of_them = list(names)
    found = [f"{repr(name) if quoted else name}{did_you_mean(name, known)}" for name in all_of_them[:_MOST_NAMED]]
    if len(all_of_them) > _MOST_NAMED:
        found.append(f"and {len(all_of_them) - _MOST_NAMED:,} more")
    return found
