"""State folders with all that can be in one, and a seal that is quick to make."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from supervisor.core.secret import Secret
from supervisor.releases.state import Known, State, render
from supervisor.store.transfer import seal

PASSPHRASE = "correct horse battery"
AT = "2026-11-22T08:00:00Z"
QUICK = 4
"""Cost of scrypt; files of it are read within `quick_seal` only."""


def state_files(mark: str) -> dict[str, bytes]:
    """What a long-lived install has, each file told apart by `mark`."""
    release = f"{mark}-0123456789ab"
    install = {
        "uuid": f"install-{mark}",
        "ports": {"redis": 20001, "postgres": 20002},
        "facts": {"engine.used": "1", "image.postgres": f"postgres:18 postgres@sha256:{mark}"},
        "verified": {"mode": {"value": "dind", "at": AT}},
        "later": mark,
    }
    known = {release: Known(sequence=3, confirmed=True)}
    return {
        "install.json": json.dumps(install).encode(),
        "secrets/redis": f"redis-secret-{mark}\n".encode(),
        "secrets/postgres-app": f"old-secret-{mark}\n".encode(),
        "secrets/postgres-app.next": f"new-secret-{mark}\n".encode(),
        "secrets/apps/api/given/STRIPE_KEY": f"-----BEGIN-{mark}\nKEY-----".encode(),
        "secrets/apps/api/made/SESSION_SECRET": f"session-secret-{mark}".encode(),
        "release-keys/team.pub": f"untrusted comment: {mark}\n".encode(),
        "rescued-acme.json": f'{{"key": "acme-secret-{mark}"}}'.encode(),
        "releases/app/state.json": render(State(active=release, good=release, releases=known)).encode(),
        "releases/app/history.jsonl": f'{{"release": "{mark}"}}\n'.encode(),
        "releases/app/sequences.json": b'{"format": 1, "highest": {}}',
    }


def secrets_of(mark: str) -> list[str]:
    """All that nobody may see."""
    files = state_files(mark)
    return [data.decode().strip() for path, data in files.items() if path.startswith(("secrets/", "rescued"))]


def write_state(state: Path, files: dict[str, bytes]) -> None:
    """As a supervisor has them."""
    state.mkdir(mode=0o711, exist_ok=True)
    for path, data in files.items():
        (state / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (state / path).write_bytes(data)
        (state / path).chmod(0o600)


def files_in(folder: Path) -> dict[str, bytes]:
    """All there is, but for the lock and empty folders."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {path: data for path, data in found.items() if path != "lock"}


@contextmanager
def quick_seal() -> Iterator[None]:
    """Keys are made in no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seal, "_LOWEST_COST", QUICK)
        yield


def sealed(content: bytes) -> bytes:
    """Quick to open, within `quick_seal`."""
    return seal.seal(content, Secret(PASSPHRASE), cost=QUICK)
