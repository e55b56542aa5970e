"""Whether a release may be applied here: decided from figures only, with every reason and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain

from supervisor.releases.host import Host, is_at_least, misfits
from supervisor.releases.manifest import Archive, Manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import UNSIGNED, Accepted, Sequences
from supervisor.releases.signature import Verified

CLOCK_TOLERANCE = timedelta(minutes=5)


class Unsigned(StrEnum):
    """What is done with a release that nobody signed."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True)
class Policy:
    """What the owner of this container wants. `threshold` keys must sign, each with a new sequence."""

    app: str
    unsigned: Unsigned = Unsigned.REFUSE
    threshold: int = 1
    allow_downgrade: bool = False


@dataclass(frozen=True)
class Facts:
    """What is so here and now; `now` is aware."""

    host: Host
    supervisor: str
    now: datetime
    sequences: Sequences


@dataclass(frozen=True)
class Admission:
    """It may be applied. `keys` are those whose signatures count; none: it is unsigned, to be shown for ever."""

    keys: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether anybody vouches for it."""
        return bool(self.keys)


@dataclass(frozen=True)
class Candidate:
    """A manifest, the SHA-256 (hex) of its exact bytes, and the signatures over them that hold."""

    manifest: Manifest
    digest: str
    verified: tuple[Verified, ...] = ()

    @property
    def accepted(self) -> Accepted:
        """What `SequenceFile.accept` is to remember of it."""
        return Accepted(sequence=self.manifest.sequence, manifest=self.digest)

    @property
    def signers(self) -> tuple[str, ...]:
        """The ids of the keys that signed."""
        return tuple(each.key_id for each in self.verified)


def admit(candidate: Candidate, facts: Facts, policy: Policy) -> Admission:
    """Raises ReleaseError with every reason against it."""
    manifest = candidate.manifest
    asked = candidate.signers or (UNSIGNED,)
    new = tuple(key for key in asked if _is_new(key, candidate, facts))
    # A signature counts by a key for which this is a new release; more than enough signatures must not be a burden.
    is_older = len(new) < min(policy.threshold, len(asked))
    reasons = [
        *chain(_why_app(manifest, policy), _why_unsigned(candidate, policy), misfits(manifest.platform, facts.host)),
        *chain(_why_supervisor(manifest, facts), _why_expired(manifest, facts)),
        *(_why_older(candidate, facts) if is_older and not policy.allow_downgrade else ()),
    ]
    notes = _clock_notes(manifest, facts)
    if reasons:
        lines = "\n".join(f"  - {each}" for each in (*reasons, *notes))
        raise ReleaseError(f"cannot accept release {manifest.version!r} of {manifest.app!r}:\n{lines}")
    if is_older:
        return Admission(candidate.signers, (*notes, f"a downgrade, as asked for: {_shown_highest(candidate, facts)}"))
    return Admission(new if candidate.signers else (), notes)


def why_unsigned(policy: Policy) -> str:
    """Why a release without any signature is refused before anything of it is read; empty where it is not."""
    if policy.unsigned is Unsigned.ALLOW:
        return ""
    return (
        "it has no signature, and only signed ones are accepted here: sign it with `supervisor release sign` by a key "
        "of the trust store, or accept unsigned ones with SUPERVISOR_RELEASE_UNSIGNED=allow"
    )


def _why_unsigned(candidate: Candidate, policy: Policy) -> list[str]:
    signers = len(candidate.verified)
    if signers >= policy.threshold:
        return []
    if signers:
        return [f"only {signers} of {policy.threshold} keys that must sign did: sign it with more of them"]
    return [why for why in (why_unsigned(policy),) if why]


def _why_app(manifest: Manifest, policy: Policy) -> list[str]:
    if manifest.app == policy.app:
        return []
    return [f"it is a release of app {manifest.app!r} and this is {policy.app!r}: send it where it belongs"]


def _why_supervisor(manifest: Manifest, facts: Facts) -> list[str]:
    minimum = manifest.min_supervisor
    try:
        if not minimum or is_at_least(facts.supervisor, minimum):
            return []
    except ReleaseError as error:
        return [str(error)]
    return [f"it needs supervisor {minimum} or newer and this is {facts.supervisor}: update the image first"]


def _why_expired(manifest: Manifest, facts: Facts) -> list[str]:
    if manifest.expires is None or facts.now < manifest.expires:
        return []
    return [
        f"it expired at {_time(manifest.expires)} and now is {_time(facts.now)}: build it again, or set this "
        f"machine's clock if it is wrong"
    ]


def _clock_notes(manifest: Manifest, facts: Facts) -> tuple[str, ...]:
    if facts.now + CLOCK_TOLERANCE >= manifest.created:
        return ()
    return (
        f"the clock here says {_time(facts.now)}, before the release was built ({_time(manifest.created)}), so "
        f"whether it has expired cannot be told: set the clock of the machine that is wrong",
    )


def _is_new(key_id: str, candidate: Candidate, facts: Facts) -> bool:
    return facts.sequences.is_new(key_id, candidate.manifest.app, candidate.accepted)


def _why_older(candidate: Candidate, facts: Facts) -> list[str]:
    return [
        f"{_shown_highest(candidate, facts)}: build it again, which gives it a higher sequence, go back to a kept one "
        f"with `supervisor release rollback`, or pass --allow-downgrade"
    ]


def _shown_highest(candidate: Candidate, facts: Facts) -> str:
    manifest = candidate.manifest
    known = ((key, facts.sequences.of(key, manifest.app)) for key in candidate.signers or (UNSIGNED,))
    shown = ", ".join(
        f"{before.sequence} ({'unsigned' if key == UNSIGNED else f'by key {key}'})" for key, before in known if before
    )
    return f"its sequence {manifest.sequence} is not above what was accepted here before, {shown}"


def check_archive(archive: Archive, *, size: int, sha256: str) -> None:
    """Bind the file that was received to the manifest. Raises ReleaseError."""
    reasons = [
        *([f"it has {size:,} bytes, the manifest says {archive.size:,}"] if size != archive.size else []),
        *([f"its SHA-256 is {sha256}, the manifest says {archive.sha256}"] if sha256 != archive.sha256 else []),
    ]
    if reasons:
        raise ReleaseError(
            f"cannot accept archive {archive.file!r}: {', and '.join(reasons)}; it is another build's, or was cut off "
            f"or changed on its way: send archive and manifest of one build again"
        )


def _time(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds")
