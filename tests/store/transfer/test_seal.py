"""The sealed file: opened by its passphrase alone, and nothing of it is believed before it was proved."""

from __future__ import annotations

import os
import random
import resource

import pytest

from supervisor.core.secret import Secret
from supervisor.store.transfer import seal
from supervisor.store.transfer.seal import MAX_BYTES, OVERHEAD_BYTES, unseal
from tests.store.transfer.rig import PASSPHRASE, quick_seal, sealed

COST_AT = 9
HEADER = 78


def test_seal_is_opened_by_its_passphrase() -> None:
    made = seal.seal(b"content", Secret("pass phrase \u00fc"))
    assert unseal(made, Secret("pass phrase \u00fc")) == b"content"
    assert made[COST_AT] == 17, "128 MiB for each guess"
    assert len(made) == OVERHEAD_BYTES + 7


def test_two_seals_of_the_same_have_nothing_in_common() -> None:
    one, other = sealed(b"\0" * 100), sealed(b"\0" * 100)
    assert one[:10] == other[:10]
    assert not {one[at : at + 8] for at in range(10, 38)} & {other[at : at + 8] for at in range(10, 38)}
    assert one[HEADER:] != other[HEADER:]


def test_wrong_passphrase_is_told_from_a_changed_file() -> None:
    made = sealed(b"content")
    with quick_seal():
        with pytest.raises(ValueError, match="the passphrase is not the one it was sealed with"):
            unseal(made, Secret(PASSPHRASE + "!"))
        changed = bytearray(made)
        changed[HEADER] ^= 1
        with pytest.raises(ValueError, match="it was changed since it was made"):
            unseal(bytes(changed), Secret(PASSPHRASE))


@pytest.mark.parametrize("at", range(HEADER))
def test_each_byte_of_the_header_is_proved(at: int) -> None:
    changed = bytearray(sealed(b"content"))
    changed[at] ^= 1
    with quick_seal(), pytest.raises(ValueError):
        unseal(bytes(changed), Secret(PASSPHRASE))


@pytest.mark.parametrize(
    ("length", "why"),
    [(0, "not made by"), (7, "not made by"), (8, "its end is missing"), (93, "its end is missing"), (-1, "1 bytes")],
)
def test_cut_file_says_that_its_end_is_missing(length: int, why: str) -> None:
    with quick_seal(), pytest.raises(ValueError, match=why):
        unseal(sealed(b"content")[:length], Secret(PASSPHRASE))


def test_file_with_more_behind_it_is_refused() -> None:
    with quick_seal(), pytest.raises(ValueError, match="it has 2 bytes too many"):
        unseal(sealed(b"content") + b"\n\n", Secret(PASSPHRASE))


def test_newer_layout_says_so() -> None:
    made = bytearray(sealed(b"content"))
    made[8] = 2
    with pytest.raises(
        ValueError, match=r"sealed by a newer version \(layout 2, this one knows 1\); update the superv"
    ):
        unseal(bytes(made), Secret(PASSPHRASE))


@pytest.mark.parametrize("cost", [0, 13, 19, 30, 63, 255])
def test_hostile_cost_takes_no_memory(cost: int) -> None:
    made = bytearray(sealed(b"content"))
    made[COST_AT] = cost
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"its cost of scrypt is {cost}, and 14 to 18 are accepted"):
        unseal(bytes(made), Secret(PASSPHRASE))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024


def test_hostile_length_is_no_promise() -> None:
    made = bytearray(sealed(b"content"))
    made[38:46] = b"\xff" * 8
    with quick_seal(), pytest.raises(ValueError, match="its end is missing"):
        unseal(bytes(made), Secret(PASSPHRASE))


def test_file_that_is_too_big_is_refused_before_it_is_opened() -> None:
    with pytest.raises(ValueError, match="it has more than 67,108,864 bytes"):
        unseal(seal.MAGIC + bytes(MAX_BYTES), Secret(PASSPHRASE))


def test_junk_is_never_anything_but_refused() -> None:
    dice = random.Random(7)
    with quick_seal():
        for _ in range(200):
            with pytest.raises(ValueError):
                unseal(seal.MAGIC[: dice.randint(0, 8)] + os.urandom(dice.randint(0, 200)), Secret(PASSPHRASE))
