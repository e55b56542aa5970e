"""Whether a release is accepted: every reason against it, in words that say what to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from supervisor.releases.admission import (
    Admission,
    Facts,
    Policy,
    Unsigned,
    admit,
    check_archive,
    why_unsigned,
)
from supervisor.releases.host import Host
from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import UNSIGNED, Accepted, Sequences
from tests.releases.signers import Release, manifest

KEY, OTHER = "1" * 16, "2" * 16
NOW = datetime(2026, 11, 22, tzinfo=UTC)
FACTS = Facts(Host("linux", "amd64", "glibc", {"node": "v20.11.1"}), "0.1.0", NOW, Sequences())
POLICY = Policy("shop")


def seen(*before: tuple[str, int]) -> Facts:
    """As after these acceptances: key and sequence."""
    sequences = Sequences()
    for key, sequence in before:
        sequences = sequences.after([key], "shop", Accepted(sequence=sequence, manifest="e" * 64))
    return replace(FACTS, sequences=sequences)


def accepted(
    signers: tuple[str, ...] = (KEY,), policy: Policy = POLICY, facts: Facts = FACTS, **values: Any
) -> Admission:
    return admit(Release(signers, values).candidate, facts, policy)


def refusal(
    signers: tuple[str, ...] = (KEY,), policy: Policy = POLICY, facts: Facts = FACTS, **values: Any
) -> list[str]:
    """The reasons, one a line."""
    with pytest.raises(ReleaseError) as caught:
        accepted(signers, policy, facts, **values)
    first, *reasons = str(caught.value).splitlines()
    assert first.startswith("cannot accept release ")
    assert first.endswith(":")
    return reasons


def test_a_good_release_is_accepted_and_its_key_named() -> None:
    assert accepted() == Admission((KEY,))
    assert accepted().signed


def test_the_release_of_another_app_is_refused() -> None:
    assert refusal(app="bank") == ["  - it is a release of app 'bank' and this is 'shop': send it where it belongs"]


@pytest.mark.parametrize(
    ("platform", "reason"),
    [
        ({"os": "darwin"}, "it is built for os 'darwin' and this is 'linux': build it for this platform"),
        ({"arch": "aarch64"}, "it is built for arch 'aarch64' and this is 'amd64': build it for this platform"),
        ({"libc": "musl"}, "it is built for libc 'musl' and this is 'glibc': build it for this platform"),
        ({"runtime": {"node": ">=22"}}, "it needs 'node' >=22 and here is v20.11.1: use an image with that"),
        ({"runtime": {"php": ">=8"}}, "it needs 'php' >=8, which was not found here: use an image that has it"),
        ({"runtime": {"node": "new"}}, "cannot read the version range 'new': 'new' is none; write it like '>=20,<23'"),
    ],
)
def test_a_release_for_another_platform_is_refused(platform: dict[str, Any], reason: str) -> None:
    (found,) = refusal(platform=platform)
    assert found.startswith(f"  - {reason}")


@pytest.mark.parametrize(
    "platform", [{"arch": "x86_64"}, {"arch": "amd64", "libc": "glibc"}, {"runtime": {"node": ">=20,<23"}}]
)
def test_a_release_for_this_platform_is_accepted(platform: dict[str, Any]) -> None:
    assert accepted(platform=platform).signed


# Time.


def test_an_expired_release_is_refused() -> None:
    (reason,) = refusal(expires="2026-11-22T00:00:00Z")
    assert reason == (
        "  - it expired at 2026-11-22 00:00:00+00:00 and now is 2026-11-22 00:00:00+00:00: build it again, or set this "
        "machine's clock if it is wrong"
    )
    assert accepted(expires="2026-11-22T00:00:01Z").notes == ()


def test_an_expired_release_is_not_saved_by_the_leave_to_downgrade() -> None:
    assert "it expired at" in refusal(policy=replace(POLICY, allow_downgrade=True), expires="2026-11-22T00:00:00Z")[0]


def test_a_clock_before_the_build_is_said_and_does_not_refuse() -> None:
    late = replace(FACTS, now=datetime(1970, 1, 2, tzinfo=UTC))
    (note,) = accepted(facts=late, expires="2026-11-23T00:00:00Z").notes
    assert note.startswith(
        "the clock here says 1970-01-02 00:00:00+00:00, before the release was built (2026-11-21 12:00"
    )
    assert refusal(facts=late, app="bank")[1] == f"  - {note}"


def test_a_clock_that_is_a_little_late_is_no_news() -> None:
    built = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert accepted(facts=replace(FACTS, now=built - timedelta(minutes=5))).notes == ()
    assert accepted(facts=replace(FACTS, now=built - timedelta(minutes=5, seconds=1))).notes != ()


# The sequence.


@pytest.mark.parametrize("before", [10, 11, 2**53 - 1])
def test_a_release_that_is_not_newer_is_refused_with_the_ways_out(before: int) -> None:
    (reason,) = refusal(facts=seen((KEY, before)))
    assert reason == (
        f"  - its sequence 10 is not above what was accepted here before, {before} (by key {KEY}): build it again, "
        f"which gives it a higher sequence, go back to a kept one with `supervisor release rollback`, or pass "
        f"--allow-downgrade"
    )


def test_a_newer_release_is_accepted() -> None:
    assert accepted(facts=seen((KEY, 9))).notes == ()


def test_what_another_key_or_nobody_signed_does_not_bind_a_key() -> None:
    assert accepted(facts=seen((OTHER, 2**53 - 1), (UNSIGNED, 2**53 - 1))).keys == (KEY,)


def test_a_key_for_which_the_release_is_old_does_not_count_beside_one_for_which_it_is_new() -> None:
    assert accepted((KEY, OTHER), facts=seen((OTHER, 11))).keys == (KEY,)
    (reason,) = refusal((KEY, OTHER), replace(POLICY, threshold=2), seen((OTHER, 11)))
    assert f"11 (by key {OTHER})" in reason


def test_a_downgrade_is_accepted_when_asked_for_and_noted() -> None:
    admission = accepted(policy=replace(POLICY, allow_downgrade=True), facts=seen((KEY, 11)))
    assert admission.keys == (KEY,)
    assert admission.notes == (
        f"a downgrade, as asked for: its sequence 10 is not above what was accepted here before, 11 (by key {KEY})",
    )


# Unsigned.


def test_an_unsigned_release_is_refused_with_the_setting() -> None:
    (reason,) = refusal(())
    assert reason == f"  - {why_unsigned(POLICY)}"
    assert reason.endswith("or accept unsigned ones with SUPERVISOR_RELEASE_UNSIGNED=allow")


def test_an_unsigned_release_is_accepted_by_an_explicit_setting_and_has_a_sequence_of_its_own() -> None:
    policy = replace(POLICY, unsigned=Unsigned.ALLOW)
    admission = accepted((), policy, seen((KEY, 99)))
    assert admission == Admission(())
    assert not admission.signed
    assert "10 (unsigned)" in refusal((), policy, seen((UNSIGNED, 10)))[0]
    assert accepted((), policy, seen((UNSIGNED, 9))) == Admission(())
    assert accepted((), replace(policy, allow_downgrade=True), seen((UNSIGNED, 10))).keys == ()
    assert why_unsigned(policy) == ""


def test_unsigned_releases_need_no_threshold() -> None:
    assert accepted((), replace(POLICY, unsigned=Unsigned.ALLOW, threshold=2)) == Admission(())


def test_fewer_signers_than_the_threshold_are_refused_here_too() -> None:
    assert refusal((KEY,), replace(POLICY, threshold=2, unsigned=Unsigned.ALLOW)) == [
        "  - only 1 of 2 keys that must sign did: sign it with more of them"
    ]


# The supervisor, and all of it.


@pytest.mark.parametrize(
    ("minimum", "fits"), [("", True), ("0.1", True), ("0.1.0", True), ("0.2", False), ("1", False)]
)
def test_a_release_for_a_newer_supervisor_is_refused(minimum: str, fits: bool) -> None:
    if fits:
        assert accepted(min_supervisor=minimum).signed
    else:
        assert refusal(min_supervisor=minimum) == [
            f"  - it needs supervisor {minimum} or newer and this is 0.1.0: update the image first"
        ]


def test_a_minimum_that_is_no_version_is_refused() -> None:
    assert "cannot read the version range '>=soon'" in refusal(min_supervisor="soon")[0]


def test_every_reason_is_told_at_once() -> None:
    reasons = refusal(
        (),
        facts=seen((UNSIGNED, 10)),
        app="bank",
        platform={"os": "darwin", "arch": "arm64", "libc": "musl", "runtime": {"node": "<20", "php": "8"}},
        expires="2026-11-21T13:00:00Z",
        min_supervisor="9",
        created="2027-01-01T00:00:00Z",
    )
    # The sequence of another app's releases is not ours to compare.
    assert len(reasons) == 10
    assert all(reason.startswith("  - ") for reason in reasons)


# The archive.

ARCHIVE = manifest().archive


def test_the_archive_that_the_manifest_names_is_accepted() -> None:
    check_archive(ARCHIVE, size=1000, sha256="a" * 64)


@pytest.mark.parametrize(
    ("size", "sha256", "why"),
    [
        (999, "a" * 64, "'shop.tar.zst': it has 999 bytes, the manifest says 1,000; it is another build's"),
        (1000, "c" * 64, f"'shop.tar.zst': its SHA-256 is {'c' * 64}, the manifest says {'a' * 64}; it is another"),
        (0, "c" * 64, f"it has 0 bytes, the manifest says 1,000, and its SHA-256 is {'c' * 64}, the manifest says"),
    ],
)
def test_any_other_archive_is_refused(size: int, sha256: str, why: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        check_archive(ARCHIVE, size=size, sha256=sha256)
    assert why in str(caught.value)
    assert str(caught.value).endswith("send archive and manifest of one build again")
