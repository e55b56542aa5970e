"""Takes releases in: what is offered is verified and admitted before any of the archive is read. Wiring."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import anyio

from supervisor import __version__
from supervisor.app_releases import AppReleases
from supervisor.core.errors import RejectedError
from supervisor.core.events import Notice, Publish
from supervisor.core.requests import Outcome
from supervisor.core.settings import Settings
from supervisor.release_original import measured
from supervisor.releases.admission import Candidate, Facts, Policy, Unsigned, admit, why_unsigned
from supervisor.releases.host import platform_facts
from supervisor.releases.manifest import manifest_id, parse_manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import SequenceFile
from supervisor.releases.steps import Admitted
from supervisor.releases.trust import read_trust_store

OFFER_SECONDS = 600.0
MAX_OFFERS = 4


@dataclass(frozen=True)
class _Offer:
    """`admitted` is None for an archive of the older kind, of which only the file's name is known."""

    admitted: Admitted | None
    keys: tuple[str, ...]
    until: float
    name: str = ""
    allow_downgrade: bool = False


class ReleaseDesk:
    """The releases of one app, for the control API; every value in and out is plain."""

    def __init__(self, releases: AppReleases, settings: Settings, publish: Publish) -> None:
        self._name = releases.name
        self._releases = releases
        self._settings = settings
        self._layout = releases.layout
        self._publish = publish
        self._sequences = SequenceFile(self._layout.root / "sequences.json")
        self._offers: dict[str, _Offer] = {}

    async def offer(
        self, manifest: bytes | None, signatures: list[bytes], *, allow_downgrade: bool, name: str = ""
    ) -> dict[str, Any]:
        """Verify and admit a release; gives the offer's id, for `accept`. Raises RejectedError with every reason.

        Without a manifest it is an archive of the older kind, with this file name: nobody signed it.
        """
        try:
            if manifest is None:
                offer = self._original(name, allow_downgrade)
                notes: tuple[str, ...] = ()
            else:
                offer, notes = await self._admitted(manifest, signatures, allow_downgrade)
        except ReleaseError as error:
            raise RejectedError(str(error)) from error
        self._drop_old()
        if len(self._offers) >= MAX_OFFERS:
            raise RejectedError(f"{MAX_OFFERS} releases are offered and not sent yet; send one of them, or wait")
        number = secrets.token_hex(8)
        self._offers[number] = offer
        release = offer.admitted.release if offer.admitted is not None else ""
        return {"offer": number, "release": release, "keys": list(offer.keys), "notes": list(notes)}

    def _original(self, name: str, allow_downgrade: bool) -> _Offer:
        if why := why_unsigned(self._policy(allow_downgrade)):
            raise ReleaseError(f"cannot accept an archive without a manifest: {why}")
        return _Offer(None, (), time.monotonic() + OFFER_SECONDS, name, allow_downgrade)

    async def _admitted(
        self, manifest: bytes, signatures: list[bytes], allow_downgrade: bool
    ) -> tuple[_Offer, tuple[str, ...]]:
        runtimes = await self._releases.runtimes(parse_manifest(manifest).platform.runtime)
        offer, notes = await anyio.to_thread.run_sync(self._admit, manifest, signatures, allow_downgrade, runtimes)
        for note in notes:
            self._publish(Notice(message=f"a release is offered: {note}"))
        return offer, notes

    def _policy(self, allow_downgrade: bool) -> Policy:
        return Policy(
            app=self._name,
            unsigned=Unsigned(self._settings.release_unsigned),
            threshold=self._settings.release_threshold,
            allow_downgrade=allow_downgrade,
        )

    def _admit(
        self, data: bytes, signatures: list[bytes], allow_downgrade: bool, runtimes: Mapping[str, str]
    ) -> tuple[_Offer, tuple[str, ...]]:
        settings = self._settings
        keys = settings.release_keys or self._layout.root.parents[1] / "release-keys"
        store = read_trust_store(keys, settings.release_threshold)
        verified = store.verify(data, signatures)
        manifest = parse_manifest(data)
        digest = hashlib.sha256(data).hexdigest()
        facts = Facts(platform_facts(runtimes), __version__, datetime.now(UTC), self._sequences.read())
        admission = admit(Candidate(manifest, digest, verified), facts, self._policy(allow_downgrade))
        admitted = Admitted(
            release=manifest_id(manifest, data),
            manifest=manifest,
            data=data,
            digest=digest,
            key=",".join(admission.keys),
            signatures=tuple(signatures),
        )
        return _Offer(admitted, admission.keys, time.monotonic() + OFFER_SECONDS), admission.notes

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._offers = {number: offer for number, offer in self._offers.items() if offer.until > now}

    async def accept(self, number: str, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Take an offered release's archive, and bring it into service. Raises RejectedError for an unknown offer."""
        self._drop_old()
        offer = self._offers.pop(number, None)
        if offer is None:
            raise RejectedError("nothing is offered under that number, or it was too long ago; offer it again")
        if offer.admitted is not None:
            return await self._apply(offer.admitted, offer.keys, blocks, actor)
        try:
            reaper, layout = self._releases.reaper, self._layout
            async with measured(layout, self._name, offer.name, blocks, reaper) as (manifest, again):
                known, _ = await self._admitted(manifest, [], offer.allow_downgrade)
                assert known.admitted is not None
                return await self._apply(known.admitted, (), again, actor)
        except (ReleaseError, OSError) as error:
            raise RejectedError(str(error)) from error

    async def _apply(
        self, admitted: Admitted, keys: tuple[str, ...], blocks: AsyncIterator[bytes], actor: str
    ) -> Outcome:
        outcome = await self._releases.apply(admitted, blocks, actor)
        if outcome.ok:
            candidate = Candidate(admitted.manifest, admitted.digest)
            await anyio.to_thread.run_sync(self._sequences.accept, keys, self._name, candidate.accepted)
        return outcome

    async def roll_back(self, target: str, actor: str) -> Outcome:
        """Back to a release that was good before; empty: the best there is."""
        return await self._releases.roll_back(target, actor)

    async def confirm(self) -> Outcome:
        """End the trial that is running: it is good."""
        return await self._releases.confirm()

    async def prune(self) -> list[str]:
        """Delete what need not be kept; gives the ids."""
        return await self._releases.updates.prune()

    async def listed(self) -> list[dict[str, Any]]:
        """All releases, the newest first."""
        return [asdict(row) for row in await self._releases.updates.listed()]

    async def shown(self, release: str) -> dict[str, Any] | None:
        """One release with its manifest; None where there is none."""
        rows = [row for row in await self._releases.updates.listed() if row.release == release]
        if not rows:
            return None
        manifest = await self._releases.updates.manifest(release)
        said: Mapping[str, Any] = {} if manifest is None else manifest.model_dump(mode="json", by_alias=True)
        return {**asdict(rows[0]), "manifest": said}

    async def history(self, *, verify: bool) -> dict[str, Any]:
        """What was done, the oldest first; with `verify` also whether any line was changed."""
        lines = [asdict(line) for line in await self._releases.updates.history()]
        if not verify:
            return {"history": lines}
        try:
            return {"history": lines, "verified": await self._releases.updates.verify_history()}
        except ReleaseError as error:
            return {"history": lines, "verified": None, "reason": str(error)}
