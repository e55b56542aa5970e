"""Signatures: what holds, what does not and what is said then; and the `minisign` program agrees."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.core.secret import Secret
from supervisor.releases.model import ReleaseError
from supervisor.releases.signature import (
    MAX_KEY_BYTES,
    MAX_SIGNATURE_BYTES,
    claimed_key,
    make_keys,
    parse_key,
    sign,
    verify,
)
from tests.releases.signers import CAROL_OF_MINISIGN, Signer, no_password

DATA = b'{"app": "shop", "sequence": 7}\n'
ALICE = Signer.make()
BOB = Signer.make()
GOOD = ALICE.sign(DATA, "timestamp:1\tfile:manifest.json")


def with_line(signature: bytes, number: int, line: bytes) -> bytes:
    lines = signature.splitlines()
    lines[number] = line
    return b"\n".join(lines) + b"\n"


def with_flipped_bit(signature: bytes, number: int, at: int) -> bytes:
    raw = bytearray(base64.b64decode(signature.splitlines()[number]))
    raw[at] ^= 1
    return with_line(signature, number, base64.b64encode(raw))


# What holds.


def test_a_signature_holds_for_the_very_bytes_and_names_its_key() -> None:
    verified = verify(DATA, GOOD, [BOB.key, ALICE.key])
    assert verified.key_id == ALICE.id == claimed_key(GOOD)
    assert verified.trusted_comment == "timestamp:1\tfile:manifest.json"


def test_an_empty_text_can_be_signed_too() -> None:
    assert verify(b"", ALICE.sign(b""), [ALICE.key]).key_id == ALICE.id


def test_a_trusted_comment_cannot_steer_a_terminal() -> None:
    import minisign

    key = minisign.SecretKey.from_bytes(ALICE.secret.reveal().encode())
    made = key.sign(DATA)
    # What the library would not sign, another program may.
    evil = "\x1b[2J\x07gone"
    made._trusted_comment = evil
    made._global_signature = _raw_signature(key, made._signature + evil.encode())
    assert verify(DATA, bytes(made), [ALICE.key]).trusted_comment == "?[2J?gone"


def _raw_signature(key: object, data: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(bytes(key._keynum_sk.secret_key)).sign(data)  # type: ignore[attr-defined]


# What does not.


@pytest.mark.parametrize("changed", [b"", DATA[:-1], DATA + b" ", DATA.replace(b"7", b"8")])
def test_a_signature_does_not_hold_for_other_bytes(changed: bytes) -> None:
    with pytest.raises(ReleaseError, match="does not hold for these bytes under that key; take the manifest and its"):
        verify(changed, GOOD, [ALICE.key])


def test_a_key_that_is_not_trusted_is_named() -> None:
    with pytest.raises(ReleaseError, match=f"names key {ALICE.id}: that key is not trusted here; sign with one"):
        verify(DATA, GOOD, [BOB.key])


def test_a_signature_under_another_keys_id_does_not_hold() -> None:
    mallory = Signer.make()
    raw = bytearray(base64.b64decode(mallory.sign(DATA).splitlines()[1]))
    raw[2:10] = base64.b64decode(GOOD.splitlines()[1])[2:10]
    forged = with_line(mallory.sign(DATA), 1, base64.b64encode(raw))
    assert claimed_key(forged) == ALICE.id
    with pytest.raises(ReleaseError, match="does not hold"):
        verify(DATA, forged, [ALICE.key, mallory.key])


@pytest.mark.parametrize(("line", "at"), [(1, 10), (1, 73), (3, 0), (3, 63)])
def test_a_signature_with_one_changed_bit_does_not_hold(line: int, at: int) -> None:
    with pytest.raises(ReleaseError, match="does not hold"):
        verify(DATA, with_flipped_bit(GOOD, line, at), [ALICE.key])


def test_a_changed_trusted_comment_is_noticed_and_not_quoted() -> None:
    with pytest.raises(ReleaseError, match="does not hold") as caught:
        verify(DATA, with_line(GOOD, 2, b"trusted comment: sequence 99"), [ALICE.key])
    assert "sequence 99" not in str(caught.value)


def test_a_legacy_signature_is_refused_with_the_way_out() -> None:
    with pytest.raises(ReleaseError, match="legacy kind, not prehashed; sign again with `supervisor release sign`"):
        verify(DATA, ALICE.sign_the_legacy_way(DATA), [ALICE.key])


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n\n\n\n",
        b"hello",
        GOOD[:-40],
        GOOD + b"one more line\n",
        with_line(GOOD, 0, b"comment: x"),
        with_line(GOOD, 1, b"!!!!"),
        with_line(GOOD, 1, base64.b64encode(b"XX" + bytes(72))),
        with_line(GOOD, 2, b"trusted comment: \xff"),
        with_line(GOOD, 3, base64.b64encode(bytes(63))),
    ],
)
def test_what_is_no_signature_is_said_to_be_none(junk: bytes) -> None:
    with pytest.raises(ReleaseError, match=r"cannot read the signature: it is no minisign signature \(.*give the"):
        verify(DATA, junk, [ALICE.key])


def test_a_large_file_is_not_parsed_as_a_signature() -> None:
    with pytest.raises(ReleaseError, match=f"more than {MAX_SIGNATURE_BYTES} bytes"):
        verify(DATA, GOOD + b"x" * MAX_SIGNATURE_BYTES, [ALICE.key])


@settings(max_examples=300, deadline=None)
@given(junk=st.binary(max_size=400))
@example(junk=b"untrusted comment: \n" + b"A" * 100 + b"\ntrusted comment: \n" + b"A" * 88)
def test_no_bytes_are_a_signature_or_anything_but_our_error(junk: bytes) -> None:
    with pytest.raises(ReleaseError):
        verify(DATA, junk, [ALICE.key])


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(GOOD) - 2), byte=st.integers(0, 255))
def test_no_changed_byte_of_a_signature_passes_unnoticed(at: int, byte: int) -> None:
    changed = GOOD[:at] + bytes([byte]) + GOOD[at + 1 :]
    try:
        verified = verify(DATA, changed, [ALICE.key])
    except ReleaseError:
        assert changed != GOOD
    else:
        # The first line is a comment that nobody signs, and we never show; spare bits of base64 mean nothing.
        assert signed_part(changed) == signed_part(GOOD)
        assert verified == verify(DATA, GOOD, [ALICE.key])


def signed_part(signature: bytes) -> tuple[bytes, bytes, bytes]:
    _, first, comment, second = signature.splitlines()
    return base64.b64decode(first), comment, base64.b64decode(second)


# Keys.


def test_a_public_key_is_read_with_its_id() -> None:
    assert ALICE.key.id == ALICE.id
    assert f"minisign public key {ALICE.id}" in ALICE.public


def test_an_id_is_written_as_the_minisign_program_does() -> None:
    assert parse_key(CAROL_OF_MINISIGN.encode()).id == "6C2E45B007A8CEF"


@settings(max_examples=200, deadline=None)
@given(junk=st.binary(max_size=200))
@example(junk=b"x" * (MAX_KEY_BYTES + 1))
@example(junk=b"untrusted comment: \n" + b"A" * 56)
def test_no_bytes_are_a_key_or_anything_but_our_error(junk: bytes) -> None:
    with pytest.raises(ReleaseError, match="cannot read the key"):
        parse_key(junk)


def test_a_secret_key_is_no_public_one() -> None:
    with pytest.raises(ReleaseError, match="it is no minisign public key"):
        parse_key(ALICE.secret.reveal().encode())


def test_a_key_with_a_password_signs_only_with_it() -> None:
    pair = make_keys(Secret("open sesame"))
    signature = sign(DATA, pair.secret, trusted_comment="x", password=lambda: Secret("open sesame"))
    assert verify(DATA, signature, [parse_key(pair.public.encode())]).key_id == pair.id
    with pytest.raises(ReleaseError, match="cannot sign: wrong password for that key; give"):
        sign(DATA, pair.secret, trusted_comment="x", password=lambda: Secret("open barley"))


def test_a_secret_key_does_not_print_itself() -> None:
    pair = make_keys(None)
    assert pair.secret.reveal().splitlines()[1] not in repr(pair)


@pytest.mark.parametrize("junk", ["", "x", "untrusted comment: x\nAAAA\n", "untrusted comment: x\n\udc80"])
def test_what_is_no_secret_key_does_not_sign(junk: str) -> None:
    with pytest.raises(ReleaseError, match=r"cannot sign: .*give a secret key"):
        sign(DATA, Secret(junk), trusted_comment="x", password=no_password)


def test_a_damaged_key_file_without_a_password_is_found_out() -> None:
    first, line = ALICE.secret.reveal().splitlines()
    raw = bytearray(base64.b64decode(line))
    raw[70] ^= 1
    damaged = Secret(f"{first}\n{base64.b64encode(raw).decode()}\n")
    with pytest.raises(ReleaseError, match="the secret key file is damaged; restore it from a backup"):
        sign(DATA, damaged, trusted_comment="x", password=no_password)


def test_a_comment_of_two_lines_is_not_signed() -> None:
    with pytest.raises(ReleaseError, match="cannot sign: comment contains a line break"):
        sign(DATA, ALICE.secret, trusted_comment="a\nb", password=no_password)


def test_the_library_is_not_loaded_before_it_is_needed() -> None:
    script = (
        "import sys, supervisor.releases.admission; sys.exit(bool({'minisign', 'cryptography'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


# The program of the format's author.


class Program:
    """`minisign` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "manifest.json").write_bytes(DATA)

    def __call__(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["minisign", *arguments], cwd=self._folder, input=typed, capture_output=True, text=True, timeout=60
        )


needs_minisign = pytest.mark.skipif(shutil.which("minisign") is None, reason="needs minisign")


@needs_minisign
def test_the_minisign_program_accepts_our_signatures(tmp_path: Path) -> None:
    program = Program(tmp_path)
    (tmp_path / "alice.pub").write_text(ALICE.public)
    (tmp_path / "manifest.json.minisig").write_bytes(GOOD)
    done = program("-V", "-H", "-p", "alice.pub", "-m", "manifest.json")
    assert done.returncode == 0, done.stderr
    assert "timestamp:1\tfile:manifest.json" in done.stdout
    (tmp_path / "manifest.json").write_bytes(DATA + b" ")
    assert program("-V", "-p", "alice.pub", "-m", "manifest.json").returncode != 0


@needs_minisign
def test_we_accept_signatures_of_the_minisign_program(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert program("-G", "-W", "-p", "carol.pub", "-s", "carol.key").returncode == 0
    done = program("-S", "-H", "-s", "carol.key", "-m", "manifest.json", "-t", "built in CI")
    assert done.returncode == 0, done.stderr
    carol = parse_key((tmp_path / "carol.pub").read_bytes())
    signature = (tmp_path / "manifest.json.minisig").read_bytes()
    verified = verify(DATA, signature, [carol])
    assert verified.trusted_comment == "built in CI"
    assert f" {carol.id}\n" in (tmp_path / "carol.pub").read_text()
    ours = sign(DATA, Secret((tmp_path / "carol.key").read_text()), trusted_comment="x", password=no_password)
    assert verify(DATA, ours, [carol]).key_id == carol.id


@needs_minisign
def test_the_minisign_program_opens_our_keys_with_their_password(tmp_path: Path) -> None:
    program = Program(tmp_path)
    pair = make_keys(Secret("open sesame"))
    (tmp_path / "our.key").write_text(pair.secret.reveal())
    done = program("-S", "-H", "-s", "our.key", "-m", "manifest.json", typed="open sesame\n")
    assert done.returncode == 0, done.stderr
    signature = (tmp_path / "manifest.json.minisig").read_bytes()
    assert verify(DATA, signature, [parse_key(pair.public.encode())]).key_id == pair.id


@needs_minisign
def test_a_legacy_signature_of_the_minisign_program_is_refused(tmp_path: Path) -> None:
    program = Program(tmp_path)
    assert program("-G", "-W", "-p", "carol.pub", "-s", "carol.key").returncode == 0
    # Since 0.10 prehashed is what the program makes unless told; before, the other way round.
    if program("-S", "-l", "-s", "carol.key", "-m", "manifest.json").returncode != 0:
        assert program("-S", "-s", "carol.key", "-m", "manifest.json").returncode == 0
    with pytest.raises(ReleaseError, match="legacy kind"):
        verify(
            DATA,
            (tmp_path / "manifest.json.minisig").read_bytes(),
            [parse_key((tmp_path / "carol.pub").read_bytes())],
        )
