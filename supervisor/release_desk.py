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
from supervisor.releases.admission import Candidate, Facts, Policy, Unsigned, admit
from supervisor.releases.host import platform_facts
from supervisor.releases.manifest import manifest_id, parse_manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import SequenceFile
from supervisor.releases.transaction import Admitted
from supervisor.releases.trust import read_trust_store

OFFER_SECONDS = 600.0
MAX_OFFERS = 4


@dataclass(frozen=True)
class _Offer:
    admitted: Admitted
    keys: tuple[str, ...]
    until: float


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

    async def offer(self, manifest: bytes, signatures: list[bytes], *, allow_downgrade: bool) -> dict[str, Any]:
        """Verify and admit a release; gives the offer's id, for `accept`. Raises RejectedError with every reason."""
        try:
            runtimes = await self._releases.runtimes(parse_manifest(manifest).platform.runtime)
            offer, notes = await anyio.to_thread.run_sync(self._admit, manifest, signatures, allow_downgrade, runtimes)
        except ReleaseError as error:
            raise RejectedError(str(error)) from error
        for note in notes:
            self._publish(Notice(message=f"release {offer.admitted.release}: {note}"))
        self._drop_old()
        if len(self._offers) >= MAX_OFFERS:
            raise RejectedError(f"{MAX_OFFERS} releases are offered and not sent yet; send one of them, or wait")
        number = secrets.token_hex(8)
        self._offers[number] = offer
        return {"offer": number, "release": offer.admitted.release, "keys": list(offer.keys), "notes": list(notes)}

    def _admit(
        self, data: bytes, signatures: list[bytes], allow_downgrade: bool, runtimes: Mapping[str, str]
    ) -> tuple[_Offer, tuple[str, ...]]:
        settings = self._settings
        keys = settings.release_keys or self._layout.root.parents[1] / "release-keys"
        store = read_trust_store(keys, settings.release_threshold)
        verified = store.verify(data, signatures)
        manifest = parse_manifest(data)
        digest = hashlib.sha256(data).hexdigest()
        policy = Policy(
            app=self._name,
            unsigned=Unsigned(settings.release_unsigned),
            threshold=settings.release_threshold,
            allow_downgrade=allow_downgrade,
        )
        facts = Facts(platform_facts(runtimes), __version__, datetime.now(UTC), self._sequences.read())
        admission = admit(Candidate(manifest, digest, verified), facts, policy)
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
        outcome = await self._releases.apply(offer.admitted, blocks, actor)
        if outcome.ok:
            await anyio.to_thread.run_sync(self._remember, offer)
        return outcome

    def _remember(self, offer: _Offer) -> None:
        candidate = Candidate(offer.admitted.manifest, offer.admitted.digest)
        self._sequences.accept(offer.keys, self._name, candidate.accepted)

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
