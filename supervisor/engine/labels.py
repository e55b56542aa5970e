"""Labels that say whose an object in the engine is: set on services, networks, volumes, secrets, containers alike."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

INSTALL = "com.container-supervisor.install"
"""The uuid of the install that made it; also a label of a dockerd that we started."""
STACK = "com.container-supervisor.stack"
SPEC_HASH = "com.container-supervisor.spec-hash"
"""On the service, never on its container spec: that is part of the task template, so a change restarts tasks."""
LEASE = "com.container-supervisor.lease"
"""The container whose supervisor has the stack; empty for one that is no container of this engine."""
LEASE_NODE = f"{LEASE}.node"
LEASE_HOSTNAME = f"{LEASE}.hostname"
LEASE_PROCESS = f"{LEASE}.process"
LEASE_SIGNED = f"{LEASE}.signed"
"""When the holder last signed; without it the lease is free."""


class Ownership(StrEnum):
    """Whose an object is. Nothing but `ours` is ever changed or removed without being asked to."""

    OURS = "ours"
    OTHER = "other install's"
    UNLABELLED = "unlabelled"


def owned(install: str, stack: str) -> dict[str, str]:
    """The labels of an object of ours."""
    return {INSTALL: install, STACK: stack}


def ownership(labels: Mapping[str, str] | None, install: str) -> Ownership:
    """Whose an object with these labels is, seen from `install`."""
    found = (labels or {}).get(INSTALL)
    if found is None:
        return Ownership.UNLABELLED
    return Ownership.OURS if found == install else Ownership.OTHER
