"""Secret sharing for the offline root ceremony: SLIP-39 cards of 33 words, k of n.

Only for a ceremony on an offline machine. The library (`shamir-mnemonic`) is its authors' reference
code, without protection against side channels, and says so; nobody else may be watching the machine
while cards are made or joined. It draws its own randomness, so cards differ every time.

Fewer than k cards say nothing of the secret. A card holds a checksum that finds up to three wrong
words, and joining checks a digest, so a wrong card is noticed and never gives a wrong secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import shamir_mnemonic  # type: ignore[import-untyped]
from shamir_mnemonic.share import Share  # type: ignore[import-untyped]

from holdfast.errors import UsageError

SECRET_BYTES: Final = 32
SHARES_MAX: Final = 16
"""SLIP-39's own limit."""


def split(secret: bytes, threshold: int, count: int) -> tuple[str, ...]:
    """`count` cards of which any `threshold` give `secret` (32 bytes) back."""
    assert len(secret) == SECRET_BYTES
    check_plan(threshold, count)
    (cards,) = shamir_mnemonic.generate_mnemonics(1, [(threshold, count)], secret)
    return tuple(cards)


def join(cards: Sequence[str]) -> bytes:
    """The secret of enough cards, in any order; more than enough is fine. Raises UsageError."""
    shares = {_normal(card): _read(card) for card in cards}
    if not shares:
        raise UsageError("no cards given")
    threshold = max(share.member_threshold for share in shares.values())
    if len(shares) < threshold:
        raise UsageError(f"{threshold} different cards are needed, {len(shares)} were given")
    chosen = list(shares)[:threshold]
    try:
        secret = shamir_mnemonic.combine_mnemonics(chosen)
    except (shamir_mnemonic.MnemonicError, ValueError) as error:
        raise UsageError(f"the cards do not belong together: {error}") from error
    if len(secret) != SECRET_BYTES:
        raise UsageError("the cards are of something else than a root key")
    return bytes(secret)


def parse_plan(text: str) -> tuple[int, int]:
    """`2of3` as (2, 3). Raises UsageError."""
    threshold, separator, count = text.lower().partition("of")
    if not (separator and threshold.isdecimal() and count.isdecimal() and len(text) < 10):
        raise UsageError(f"{text!r} is no plan for cards; write for example 2of3")
    check_plan(int(threshold), int(count))
    return int(threshold), int(count)


def check_plan(threshold: int, count: int) -> None:
    """Raises UsageError for a plan that is none, or that has no second card."""
    if not 2 <= threshold <= count <= SHARES_MAX:
        raise UsageError(f"{threshold} of {count} cards: choose 2 to {SHARES_MAX}, k not over n")


def _read(card: str) -> Share:
    try:
        return Share.from_mnemonic(_normal(card))
    except (shamir_mnemonic.MnemonicError, ValueError) as error:
        raise UsageError(f"a card has a wrong or missing word: {error}") from error


def _normal(card: str) -> str:
    return " ".join(card.lower().split())
