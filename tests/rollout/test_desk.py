"""What is offered: who signed it is settled before anything of it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from supervisor.core.errors import RejectedError
from supervisor.core.events import Event
from supervisor.core.settings import Settings
from supervisor.releases.manifest import manifest_bytes
from supervisor.rollout.app_releases import AppReleases
from supervisor.rollout.desk import MAX_OFFERS, ReleaseDesk
from tests.releases.test_base import manifest

pytestmark = pytest.mark.anyio


def desk(state: Path, unsigned: str, *, boots: bool = False) -> ReleaseDesk:
    settings = Settings(release_unsigned=unsigned)
    events: list[Event] = []
    releases = AppReleases(
        "app", settings, state, environ={}, reaper=cast(Any, None), turn=cast(Any, None), publish=events.append
    )
    if not boots:

        async def no_runtimes(names: object) -> dict[str, str]:
            return {}

        releases.runtimes = no_runtimes  # type: ignore[method-assign]
    return ReleaseDesk(releases, settings, events.append)


async def test_without_a_signature_nothing_is_read_where_one_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="it has no signature"):
        await desk(tmp_path, "refuse").offer(b"\0 no manifest at all", [], allow_downgrade=False)


async def test_a_signature_that_does_not_hold_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="it is no minisign signature"):
        await desk(tmp_path, "allow").offer(b"\0 no manifest at all", [b"nonsense"], allow_downgrade=False)


async def test_a_manifest_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="cannot read"):
        await desk(tmp_path, "allow").offer(b"\0 no manifest at all", [], allow_downgrade=False)


async def test_in_the_boot_nothing_is_taken_in(tmp_path: Path) -> None:
    with pytest.raises(RejectedError, match="still boots"):
        await desk(tmp_path, "allow", boots=True).offer(manifest_bytes(manifest()), [], allow_downgrade=False)


async def test_only_so_many_are_offered_at_once(tmp_path: Path) -> None:
    one = desk(tmp_path, "allow")
    data = manifest_bytes(manifest())
    for _ in range(MAX_OFFERS):
        await one.offer(data, [], allow_downgrade=False)
    with pytest.raises(RejectedError, match="send one of them"):
        await one.offer(data, [], allow_downgrade=False)
