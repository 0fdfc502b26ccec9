"""Secrets on a disk: a passphrase, two halves, shares (D22)."""

from __future__ import annotations

import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.crypto import locked, shamir
from holdfast.crypto.atrest import AtRest
from holdfast.errors import OperationFault, UsageError

SEED, HALF = bytes(range(32)), bytes(range(32, 64))


def test_a_locked_key_opens_with_its_passphrase_only() -> None:
    file = locked.lock(SEED, "five random words are enough")
    assert SEED not in file
    assert locked.is_locked(file)
    assert locked.unlock(file, "  five random  words are enough ") == SEED
    with pytest.raises(UsageError, match="wrong"):
        locked.unlock(file, "five random words are enough?")
    for at in (len(locked.MAGIC) + 13, len(file) - 1):
        with pytest.raises(UsageError):
            locked.unlock(file[:at] + bytes((file[at] ^ 1,)) + file[at + 1 :], "five random words")
    with pytest.raises(UsageError, match="empty"):
        locked.lock(SEED, "  ")


def test_costs_that_would_fill_the_memory_are_refused() -> None:
    file = locked.lock(SEED, "x")
    start = len(locked.MAGIC)
    huge = file[:start] + b"\xff\xff\xff\xff" + file[start + 4 :]
    with pytest.raises(UsageError, match="costs"):
        locked.unlock(huge, "x")


def test_what_is_kept_needs_both_halves_and_its_own_place() -> None:
    box = AtRest(SEED, HALF)
    kept = box.seal("groups.secret", b"secret")
    assert box.open("groups.secret", kept) == b"secret"
    assert box.seal("groups.secret", b"secret") == kept, "equal values stay equal"
    assert b"secret" not in kept
    for other, where in (
        (AtRest(SEED), "groups.secret"),
        (AtRest(HALF, SEED), "groups.secret"),
        (AtRest(SEED, SEED), "groups.secret"),
        (box, "eras.secret"),
    ):
        with pytest.raises(OperationFault, match="half"):
            other.open(where, kept)
    with pytest.raises(OperationFault):
        box.open("groups.secret", b"short")


@settings(max_examples=30, deadline=None)
@given(st.binary(min_size=1, max_size=40), st.integers(2, 5), st.integers(0, 3))
def test_any_k_shares_give_the_secret_back(secret: bytes, k: int, more: int) -> None:
    shares = shamir.split(secret, k, k + more)
    for chosen in itertools.islice(itertools.combinations(shares.items(), k), 12):
        assert shamir.join(dict(chosen)) == secret


def test_one_share_of_two_says_nothing() -> None:
    """Every value of a byte is equally likely, whatever the secret is."""
    counts = {bytes((value,)): 0 for value in range(256)}
    for _ in range(256 * 40):
        counts[shamir.split(b"\x07", 2, 2)[1]] += 1
    assert max(counts.values()) < 100
    assert min(counts.values()) > 5
    secret = os.urandom(32)
    shares = shamir.split(secret, 3, 3)
    assert shamir.join({1: shares[1], 2: shares[2]}) != secret


def test_multiplication_is_that_of_the_field() -> None:
    """FIPS 197, section 4.2: {57} times {83} is {c1}, {57} times {13} is {fe}."""
    assert shamir._times(0x57, 0x83) == 0xC1
    assert shamir._times(0x57, 0x13) == 0xFE
    assert all(shamir._times(a, shamir._inverse(a)) == 1 for a in range(1, 256))
