"""Secrets wrapped to a key: the way back, purpose binding, damage."""

from __future__ import annotations

import pytest

from holdfast.crypto.wrap import WRAP_OVERHEAD_BYTES, WRAP_PUBLIC_BYTES, WrapKey, wrap
from holdfast.errors import PeerFault

KEY = WrapKey(bytes(range(32)))


def test_round_trip_and_sizes() -> None:
    sealed = wrap(KEY.public, b"era secret", b"invite")
    assert len(KEY.public) == WRAP_PUBLIC_BYTES
    assert len(sealed) == len(b"era secret") + WRAP_OVERHEAD_BYTES
    assert KEY.unwrap(sealed, b"invite") == b"era secret"
    assert b"era secret" not in sealed


def test_x_wing_public_key_of_a_fixed_seed() -> None:
    """X-Wing draft: the public key follows from the 32-byte seed alone."""
    assert WrapKey(bytes(range(32))).public == KEY.public
    assert WrapKey(bytes(32)).public != KEY.public


@pytest.mark.parametrize("damage", [b"", b"x", bytes(1_200)])
def test_garbage_is_a_peer_fault(damage: bytes) -> None:
    with pytest.raises(PeerFault):
        KEY.unwrap(damage, b"invite")
    with pytest.raises(PeerFault):
        wrap(damage, b"secret", b"invite")


def test_purpose_and_key_are_bound() -> None:
    sealed = wrap(KEY.public, b"era secret", b"invite")
    with pytest.raises(PeerFault):
        KEY.unwrap(sealed, b"keyring")
    with pytest.raises(PeerFault):
        WrapKey(bytes(32)).unwrap(sealed, b"invite")
    with pytest.raises(PeerFault):
        KEY.unwrap(sealed[:-1] + bytes((sealed[-1] ^ 1,)), b"invite")


def test_no_secret_in_repr() -> None:
    assert bytes(range(32)).hex() not in repr(KEY)


def test_a_key_that_is_no_point_is_refused() -> None:
    with pytest.raises(PeerFault):
        wrap(KEY.public[:-32] + bytes(32), b"secret", b"invite")
