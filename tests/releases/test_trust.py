"""The trust store: whose signatures count, how many are needed, and how keys come and go."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.releases.admission import Admission, Candidate, Facts, Policy, admit
from supervisor.releases.host import Host
from supervisor.releases.manifest import manifest_bytes, parse_manifest
from supervisor.releases.model import ReleaseError
from supervisor.releases.sequences import SequenceFile
from supervisor.releases.trust import MAX_SIGNATURES, read_signatures, read_small, read_trust_store
from tests.releases.signers import CAROL_OF_MINISIGN, Signer, manifest

DATA = b"a manifest"
ALICE, BOB, CAROL, MALLORY = (Signer.make() for _ in range(4))


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    folder = tmp_path / "trust"
    for name, signer in (("alice", ALICE), ("bob", BOB), ("carol", CAROL)):
        signer.trusted_in(folder, name)
    return folder


def ids(store_folder: Path, *signatures: bytes, threshold: int = 1) -> set[str]:
    return {each.key_id for each in read_trust_store(store_folder, threshold).verify(DATA, signatures)}


# Reading it.


def test_every_public_key_of_the_folder_is_trusted_and_nothing_else(trust: Path) -> None:
    (trust / "README").write_text("not a key")
    (trust / "old.pub.bak").write_text(MALLORY.public)
    assert {key.id for key in read_trust_store(trust).keys} == {ALICE.id, BOB.id, CAROL.id}


def test_a_key_may_be_a_link_as_mounted_secrets_are(tmp_path: Path, trust: Path) -> None:
    (trust / "alice.pub").rename(tmp_path / "mounted")
    (trust / "alice.pub").symlink_to(tmp_path / "mounted")
    assert ids(trust, ALICE.sign(DATA)) == {ALICE.id}


def test_no_folder_is_a_store_that_trusts_nobody(tmp_path: Path) -> None:
    store = read_trust_store(tmp_path / "none", threshold=2)
    assert store.verify(DATA, ()) == ()
    with pytest.raises(ReleaseError, match=f"names key {ALICE.id}: that key is not trusted here"):
        store.verify(DATA, (ALICE.sign(DATA),))


def test_all_mistakes_in_the_store_are_told_at_once(trust: Path) -> None:
    (trust / "again.pub").write_text(ALICE.public)
    (trust / "huge.pub").write_bytes(b"x" * 10_000)
    (trust / "junk.pub").write_text("hello")
    (trust / "gone.pub").symlink_to("nowhere")
    (trust / "folder.pub").mkdir()
    os.mkfifo(trust / "pipe.pub")
    (trust / "revoked").write_text(f"# a comment\nABC\n{BOB.id}\n")
    with pytest.raises(ReleaseError) as caught:
        read_trust_store(trust)
    text = str(caught.value)
    assert text.startswith(f"cannot use the trust store {str(trust)!r}:\n")
    assert len(text.splitlines()) == 8
    for part in (
        f"'alice.pub': key {ALICE.id} is in 'again.pub' already; remove one of the two",
        "'huge.pub': cannot read",
        "it has more than 4096 bytes",
        "'junk.pub': cannot read the key: it is no minisign public key",
        "'gone.pub': cannot read",
        "No such file",
        "'folder.pub': cannot read",
        "'pipe.pub': cannot read",
        "it is no file; put a file in its place",
        "'revoked' line 2: 'ABC' is no key id; give its hex digits",
    ):
        assert part in text


@pytest.mark.parametrize(("threshold", "why"), [(0, "the threshold is 0; set it to 1 or more"), (4, "only 3 of them")])
def test_a_threshold_that_cannot_be_is_refused(trust: Path, threshold: int, why: str) -> None:
    with pytest.raises(ReleaseError, match=why):
        read_trust_store(trust, threshold)


def test_revoked_keys_do_not_make_up_a_threshold(trust: Path) -> None:
    (trust / "revoked").write_text(f"{ALICE.id}\n{BOB.id}\n")
    assert read_trust_store(trust, 1).revoked == {ALICE.id, BOB.id}
    with pytest.raises(ReleaseError, match="2 of its keys must sign, and only 1 of them is not revoked; add keys"):
        read_trust_store(trust, 2)


def test_a_store_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "trust").write_text(ALICE.public)
    with pytest.raises(ReleaseError, match="it cannot be listed: Not a directory; make it a folder"):
        read_trust_store(tmp_path / "trust")


# Verifying by it.


def test_one_signature_of_any_trusted_key_is_enough_by_default(trust: Path) -> None:
    assert ids(trust, BOB.sign(DATA)) == {BOB.id}


def test_signatures_of_strangers_beside_a_good_one_do_no_harm(trust: Path) -> None:
    assert ids(trust, MALLORY.sign(DATA), b"junk", ALICE.sign(DATA)) == {ALICE.id}


def test_no_signature_at_all_is_for_the_policy_to_judge(trust: Path) -> None:
    assert ids(trust, threshold=2) == set()


def test_a_threshold_of_two_needs_two_different_keys(trust: Path) -> None:
    assert ids(trust, ALICE.sign(DATA), BOB.sign(DATA), threshold=2) == {ALICE.id, BOB.id}
    for given in ([ALICE.sign(DATA)], [ALICE.sign(DATA, "one"), ALICE.sign(DATA, "two")]):
        with pytest.raises(ReleaseError, match=rf"2 trusted keys must have signed it, 1 did \(by {ALICE.id}\)"):
            ids(trust, *given, threshold=2)


def test_too_few_signatures_are_refused_with_a_reason_for_each(trust: Path) -> None:
    with pytest.raises(ReleaseError) as caught:
        ids(trust, ALICE.sign(DATA), MALLORY.sign(DATA), BOB.sign(b"another"), threshold=2)
    text = str(caught.value)
    assert f"names key {MALLORY.id}: that key is not trusted here" in text
    assert f"names key {BOB.id}: it does not hold for these bytes" in text


def test_a_revoked_key_counts_for_nothing(trust: Path) -> None:
    (trust / "revoked").write_text(f"# leaked in June\n{ALICE.id.lower()}  # Alice's laptop\n\n")
    with pytest.raises(ReleaseError, match=f"names key {ALICE.id}: that key is revoked here; sign with another"):
        ids(trust, ALICE.sign(DATA))
    assert ids(trust, ALICE.sign(DATA), BOB.sign(DATA)) == {BOB.id}
    with pytest.raises(ReleaseError, match="2 trusted keys must have signed it, 1 did"):
        ids(trust, ALICE.sign(DATA), BOB.sign(DATA), threshold=2)


def test_an_id_is_revoked_with_and_without_its_leading_zeros(tmp_path: Path) -> None:
    (tmp_path / "carol.pub").write_text(CAROL_OF_MINISIGN)
    for written in ("6C2E45B007A8CEF", "06c2e45b007a8cef"):
        (tmp_path / "revoked").write_text(written)
        with pytest.raises(ReleaseError, match="only 0 of them are not revoked"):
            read_trust_store(tmp_path)


def test_the_signature_of_another_manifest_does_not_hold(trust: Path) -> None:
    with pytest.raises(ReleaseError, match="does not hold for these bytes"):
        ids(trust, ALICE.sign(b"another manifest"))


def test_a_heap_of_signatures_is_not_even_looked_at(trust: Path) -> None:
    with pytest.raises(ReleaseError, match=f"it has 17 signatures, more than {MAX_SIGNATURES}"):
        ids(trust, *[ALICE.sign(DATA)] * 17)


# Files.


def test_the_signatures_beside_a_manifest_are_found(tmp_path: Path) -> None:
    for name in ("m.json", "m.json.minisig", "m.json.bob.minisig", "other.json.minisig", "m.json.txt"):
        (tmp_path / name).write_text(name)
    assert read_signatures(tmp_path / "m.json") == [b"m.json.bob.minisig", b"m.json.minisig"]
    with pytest.raises(ReleaseError, match="No such file"):
        read_signatures(tmp_path / "none" / "m.json")


def test_a_heap_of_signature_files_is_refused(tmp_path: Path) -> None:
    for number in range(17):
        (tmp_path / f"m.json.{number}.minisig").touch()
    with pytest.raises(ReleaseError, match="there are 17, more than 16"):
        read_signatures(tmp_path / "m.json")


def test_a_small_file_is_read_whole_and_a_large_one_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_small(tmp_path / "file", 5) == b"12345"
    with pytest.raises(ReleaseError, match="it has more than 4 bytes"):
        read_small(tmp_path / "file", 4)


# How it all goes together.


class Container:
    """A container that accepts releases, with its trust store and its memory."""

    def __init__(self, folder: Path, *, threshold: int = 1) -> None:
        self.trust, self.threshold = folder / "trust", threshold
        self.sequences = SequenceFile(folder / "sequences.json")

    def receive(self, data: bytes, *signatures: bytes, allow_downgrade: bool = False) -> Admission:
        """As an update does it: the signatures first, then the manifest, then the policy, then the memory."""
        verified = read_trust_store(self.trust, self.threshold).verify(data, signatures)
        candidate = Candidate(parse_manifest(data), hashlib.sha256(data).hexdigest(), verified)
        now = datetime(2026, 11, 22, tzinfo=UTC)
        facts = Facts(Host("linux", "amd64"), "0.1.0", now, self.sequences.read())
        policy = Policy("shop", threshold=self.threshold, allow_downgrade=allow_downgrade)
        admission = admit(candidate, facts, policy)
        self.sequences.accept(admission.keys, "shop", candidate.accepted)
        return admission


def build(sequence: int) -> bytes:
    return manifest_bytes(manifest(sequence=sequence, version=f"1.{sequence}"))


def test_a_leaked_key_is_replaced_and_cannot_lock_its_replacement_out(tmp_path: Path) -> None:
    container = Container(tmp_path)
    ALICE.trusted_in(container.trust, "alice")
    old, new = build(5), build(6)

    # Alice ships, and what she shipped before does not come back.
    assert container.receive(new, ALICE.sign(new)).keys == (ALICE.id,)
    with pytest.raises(ReleaseError, match=rf"its sequence 5 is not above .* 6 \(by key {ALICE.id}\)"):
        container.receive(old, ALICE.sign(old))

    # Before the theft is noticed, the thief signs the highest number there is, so that nothing can follow.
    huge = build(2**53 - 1)
    container.receive(huge, ALICE.sign(huge))
    good = build(7)
    with pytest.raises(ReleaseError, match="is not above"):
        container.receive(good, ALICE.sign(good))

    # Bob's key comes in, Alice's is revoked: Bob begins where he likes.
    with pytest.raises(ReleaseError, match=f"names key {BOB.id}: that key is not trusted here"):
        container.receive(good, BOB.sign(good))
    BOB.trusted_in(container.trust, "bob")
    (container.trust / "revoked").write_text(ALICE.id)
    assert container.receive(good, BOB.sign(good)).keys == (BOB.id,)
    with pytest.raises(ReleaseError, match="revoked"):
        container.receive(huge, ALICE.sign(huge))

    # Her key file goes altogether; what is known of it stays until somebody says otherwise.
    (container.trust / "alice.pub").unlink()
    next_one = build(8)
    container.receive(next_one, BOB.sign(next_one))
    assert container.sequences.read().of(ALICE.id, "shop") is not None
    assert container.sequences.forget(ALICE.id)
    assert container.sequences.read().of(ALICE.id, "shop") is None
    assert container.sequences.read().of(BOB.id, "shop") is not None


def test_a_huge_sequence_by_a_stranger_leaves_no_trace(tmp_path: Path) -> None:
    container = Container(tmp_path)
    ALICE.trusted_in(container.trust, "alice")
    huge, good = build(2**53 - 1), build(1)
    with pytest.raises(ReleaseError, match="not trusted here"):
        container.receive(huge, MALLORY.sign(huge))
    container.receive(good, ALICE.sign(good))


def test_a_key_that_leaked_among_two_that_must_sign_is_no_use_alone(tmp_path: Path) -> None:
    container = Container(tmp_path, threshold=2)
    for name, signer in (("alice", ALICE), ("bob", BOB), ("carol", CAROL)):
        signer.trusted_in(container.trust, name)
    first, second = build(1), build(2)
    assert container.receive(first, ALICE.sign(first), BOB.sign(first)).keys == (ALICE.id, BOB.id)
    with pytest.raises(ReleaseError, match="2 trusted keys must have signed it, 1 did"):
        container.receive(second, ALICE.sign(second))
    # An old one is old by both of its signers, whoever else is asked for a signature now.
    container.receive(second, BOB.sign(second), CAROL.sign(second))
    with pytest.raises(ReleaseError, match="its sequence 1 is not above"):
        container.receive(first, BOB.sign(first), CAROL.sign(first))


def test_a_downgrade_that_is_asked_for_lowers_nothing(tmp_path: Path) -> None:
    container = Container(tmp_path)
    ALICE.trusted_in(container.trust, "alice")
    old, new = build(5), build(6)
    container.receive(new, ALICE.sign(new))
    admission = container.receive(old, ALICE.sign(old), allow_downgrade=True)
    assert admission.keys == (ALICE.id,)
    assert any(note.startswith("a downgrade, as asked for: its sequence 5") for note in admission.notes)
    with pytest.raises(ReleaseError, match="is not above"):
        container.receive(old, ALICE.sign(old))


def test_the_same_release_may_be_tried_again_but_not_another_of_its_number(tmp_path: Path) -> None:
    container = Container(tmp_path)
    ALICE.trusted_in(container.trust, "alice")
    release = build(5)
    container.receive(release, ALICE.sign(release))
    container.receive(release, ALICE.sign(release))
    other = manifest_bytes(manifest(sequence=5, version="changed"))
    with pytest.raises(ReleaseError, match="its sequence 5 is not above"):
        container.receive(other, ALICE.sign(other))


def test_the_manifest_of_another_app_is_refused_though_well_signed(tmp_path: Path) -> None:
    container = Container(tmp_path)
    ALICE.trusted_in(container.trust, "alice")
    other = manifest_bytes(manifest(app="bank"))
    with pytest.raises(ReleaseError, match="it is a release of app 'bank' and this is 'shop'"):
        container.receive(other, ALICE.sign(other))
    assert container.sequences.read().highest == {}
