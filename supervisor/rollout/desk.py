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
from supervisor.core.errors import RejectedError, SupervisorError
from supervisor.core.events import Notice, Publish
from supervisor.core.requests import Outcome
from supervisor.core.settings import Settings
from supervisor.releases.admission import Candidate, Facts, Policy, Unsigned, admit, why_unsigned
from supervisor.releases.host import platform_facts
from supervisor.releases.manifest import manifest_id, parse_manifest
from supervisor.releases.model import ReleaseError, of_disk
from supervisor.releases.sequences import SequenceFile
from supervisor.releases.signature import Verified
from supervisor.releases.steps import Admitted
from supervisor.releases.trust import read_trust_store
from supervisor.rollout.app_releases import AppReleases
from supervisor.rollout.original import measured

OFFER_SECONDS = 600.0
MAX_OFFERS = 4


@dataclass(frozen=True)
class Examined:
    """A release that may be brought into service, and the keys for which it is a new one."""

    admitted: Admitted
    keys: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Original:
    """An archive of the older kind, of which only the file's name is known."""

    name: str
    allow_downgrade: bool


@dataclass(frozen=True)
class _Offer:
    what: Examined | Original
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

    async def offer(
        self, manifest: bytes | None, signatures: list[bytes], *, allow_downgrade: bool, name: str = ""
    ) -> dict[str, Any]:
        """Verify and admit a release; gives the offer's id, for `accept`. Raises RejectedError with every reason.

        Without a manifest it is an archive of the older kind, with this file name: nobody signed it.
        """
        if manifest is None:
            return self._keep(self._original(name, allow_downgrade), "", ())
        examined = await self.examine(manifest, signatures, allow_downgrade=allow_downgrade)
        return self._keep(examined, examined.admitted.release, examined.keys, examined.notes)

    def _keep(
        self, what: Examined | Original, release: str, keys: tuple[str, ...], notes: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        self._drop_old()
        if len(self._offers) >= MAX_OFFERS:
            raise RejectedError(f"{MAX_OFFERS} releases are offered and not sent yet; send one of them, or wait")
        number = secrets.token_hex(8)
        self._offers[number] = _Offer(what, time.monotonic() + OFFER_SECONDS)
        return {"offer": number, "release": release, "keys": list(keys), "notes": list(notes)}

    def _original(self, name: str, allow_downgrade: bool) -> Original:
        if why := why_unsigned(self._policy(allow_downgrade)):
            raise RejectedError(f"cannot accept an archive without a manifest: {why}")
        return Original(name, allow_downgrade)

    async def examine(self, data: bytes, signatures: list[bytes], *, allow_downgrade: bool) -> Examined:
        """Verify and admit a release by its manifest. Raises RejectedError with every reason against it.

        Who signed it is settled before anything of the manifest is read, and before any program is run for it.
        """
        try:
            return await self._examined(data, signatures, allow_downgrade)
        except ReleaseError as error:
            raise RejectedError(str(error)) from error
        except OSError as error:
            raise RejectedError(of_disk(error, self._layout.root)) from error

    async def _examined(self, data: bytes, signatures: list[bytes], allow_downgrade: bool) -> Examined:
        policy = self._policy(allow_downgrade)
        verified = await anyio.to_thread.run_sync(self._verified, data, signatures, policy)
        manifest = parse_manifest(data)
        runtimes = await self._releases.runtimes(manifest.platform.runtime)
        known = await anyio.to_thread.run_sync(self._sequences.read)
        digest = hashlib.sha256(data).hexdigest()
        facts = Facts(platform_facts(runtimes), __version__, datetime.now(UTC), known)
        admission = admit(Candidate(manifest, digest, verified), facts, policy)
        for note in admission.notes:
            self._publish(Notice(message=f"a release is offered: {note}"))
        admitted = Admitted(
            release=manifest_id(manifest, data),
            manifest=manifest,
            data=data,
            digest=digest,
            key=",".join(admission.keys),
            signatures=tuple(signatures),
        )
        return Examined(admitted, admission.keys, admission.notes)

    def _verified(self, data: bytes, signatures: list[bytes], policy: Policy) -> tuple[Verified, ...]:
        keys = self._settings.release_keys or self._layout.root.parents[1] / "release-keys"
        verified = read_trust_store(keys, policy.threshold).verify(data, signatures)
        if not verified and (why := why_unsigned(policy)):
            raise ReleaseError(f"cannot accept the release: {why}")
        return verified

    def _policy(self, allow_downgrade: bool) -> Policy:
        return Policy(
            app=self._name,
            unsigned=Unsigned(self._settings.release_unsigned),
            threshold=self._settings.release_threshold,
            allow_downgrade=allow_downgrade,
        )

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._offers = {number: offer for number, offer in self._offers.items() if offer.until > now}

    async def accept(self, number: str, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Take an offered release's archive, and bring it into service. Raises RejectedError for an unknown offer."""
        self._drop_old()
        offer = self._offers.pop(number, None)
        if offer is None:
            raise RejectedError("nothing is offered under that number, or it was too long ago; offer it again")
        if isinstance(offer.what, Examined):
            return await self.bring_in(offer.what, blocks, actor)
        return await self._bring_in_original(offer.what, blocks, actor)

    async def _bring_in_original(self, original: Original, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        reaper, layout = self._releases.reaper, self._layout
        try:
            async with measured(layout, self._name, original.name, blocks, reaper) as (manifest, again):
                examined = await self._examined(manifest, [], original.allow_downgrade)
                return await self.bring_in(examined, again, actor)
        except ReleaseError as error:
            raise RejectedError(str(error)) from error
        except OSError as error:
            raise RejectedError(of_disk(error, layout.root)) from error

    async def bring_in(self, examined: Examined, blocks: AsyncIterator[bytes], actor: str) -> Outcome:
        """Bring it into service; what came in is remembered against a downgrade."""
        admitted = examined.admitted
        outcome = await self._releases.apply(admitted, blocks, actor)
        if outcome.ok:
            candidate = Candidate(admitted.manifest, admitted.digest)
            await anyio.to_thread.run_sync(self._sequences.accept, examined.keys, self._name, candidate.accepted)
        return outcome

    def is_active(self, release: str) -> bool:
        """Whether it is the active one."""
        return self._releases.updates.state.active == release

    def why_failed(self, release: str) -> str:
        """Why it did not hold when it was tried last; empty where it was not, or did."""
        known = self._releases.updates.state.releases.get(release)
        return known.failed if known is not None else ""

    async def roll_back(self, target: str, actor: str) -> Outcome:
        """Back to a release that was good before; empty: the best there is."""
        return await self._releases.roll_back(target, actor)

    async def confirm(self) -> Outcome:
        """End the trial that is running: it is good."""
        return await self._releases.confirm()

    async def contract(self, actor: str, *, give_up: bool) -> Outcome:
        """Apply the contract migrations that are due."""
        return await self._releases.contract(actor, give_up=give_up)

    async def prune(self, keep: int | None) -> list[str]:
        """Delete what need not be kept; gives the ids."""
        return await self._releases.updates.prune(keep)

    async def listed(self) -> list[dict[str, Any]]:
        """All releases, the newest first."""
        return [asdict(row) for row in await self._releases.updates.kept.listed()]

    async def shown(self, release: str) -> dict[str, Any] | None:
        """One release with its manifest, and whether its files are as they were; None where there is none."""
        rows = [row for row in await self._releases.updates.kept.listed() if row.release == release]
        if not rows:
            return None
        manifest = await self._releases.updates.kept.manifest(release)
        said: Mapping[str, Any] = {} if manifest is None else manifest.model_dump(mode="json", by_alias=True)
        saved = await self._releases.updates.kept.snapshots(release)
        return {
            **asdict(rows[0]),
            "due": await self._due(release),
            "snapshots": [{**asdict(each), "restore": each.how_to_restore} for each in saved],
            "damaged": await self._releases.updates.kept.why_damaged(release),
            "manifest": said,
        }

    async def _due(self, release: str) -> list[str] | None:
        """Contract migrations that are due, of what serves; None where that cannot be told."""
        if not self.is_active(release):
            return []
        try:
            return list(await self._releases.due())
        except SupervisorError:
            return None

    async def history(self, *, verify: bool) -> dict[str, Any]:
        """What was done, the oldest first; with `verify` also whether any line was changed."""
        lines = [asdict(line) for line in await self._releases.updates.kept.history()]
        if not verify:
            return {"history": lines}
        try:
            return {"history": lines, "verified": await self._releases.updates.kept.verify_history()}
        except ReleaseError as error:
            return {"history": lines, "verified": None, "reason": str(error)}
