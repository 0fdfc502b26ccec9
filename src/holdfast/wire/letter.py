"""Letters: one request from a device to another, and its answer, sealed and signed end to end.

They need nothing of what carries them: a socket of the local network, a friend's node in between,
a mailbox. A letter is `[signed, sealed]`: a `Type.LETTER` of LetterBody by the sender's device,
which names the hash of `sealed`; that is HPKE to the recipient's device wrap key of a Request, with

    info = "holdfast v1 letter" | recipient's device key

The answer is HPKE of an Answer to the key that the request brought, known to nobody but the two:

    info = "holdfast v1 letter answer" | H(letter's signed body)

`access` proves that the sender may open a tag, as sessions with servers do: the access key's
signature over "holdfast v1 letter access" 0x00 | H(reply key) | recipient's device key.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes, verify_ed25519
from holdfast.errors import PeerFault
from holdfast.limits.people import LETTER_BYTES_MAX
from holdfast.wire.codec import Message
from holdfast.wire.signed import Signed

ACCESS_MAX: Final = 64
_SKEW_S: Final = 600.0


class LetterBody(Message):
    """Body of a `Type.LETTER`."""

    to: bytes
    digest: bytes
    """H(sealed)."""


class Letter(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What travels."""

    signed: Signed
    sealed: bytes


class Request(Message):
    """What is asked. `statement`: the sender's person vouches for the sending device."""

    verb: str
    body: bytes
    statement: Signed
    reply_key: bytes
    at: int
    access: tuple[tuple[bytes, bytes], ...] = ()
    """(access public key, signature)."""


class Answer(Message):
    """What came of it. `code` is empty when it went well, else `why` says what to do."""

    code: str
    why: str
    body: bytes


def letter_info(to: bytes) -> bytes:
    """HPKE `info` of a letter."""
    return b"holdfast v1 letter" + to


def answer_info(body: bytes) -> bytes:
    """HPKE `info` of the answer to the letter with that signed body."""
    return b"holdfast v1 letter answer" + hash_bytes(body)


def access_input(reply_key: bytes, to: bytes) -> bytes:
    """What an access key signs."""
    return b"holdfast v1 letter access\x00" + hash_bytes(reply_key) + to


def prove_access(key: SigningKey, reply_key: bytes, to: bytes) -> tuple[bytes, bytes]:
    """One element of `access`."""
    return key.public, key.sign(access_input(reply_key, to))


def proven_tags(request: Request, to: bytes) -> frozenset[bytes]:
    """Tags that the sender may open. Raises PeerFault for a false proof."""
    if len(request.access) > ACCESS_MAX:
        raise PeerFault("letter with too many proofs", code="too-large")
    data = access_input(request.reply_key, to)
    for public, signature in request.access:
        if not verify_ed25519(public, signature, data):
            raise PeerFault("letter with a false proof of access", code="signature")
    return frozenset(hash_bytes(public) for public, _ in request.access)


def check_time(at: int, wall_s: float) -> None:
    """Raises PeerFault for a letter too old or too new: kept by somebody, or a wrong clock."""
    if abs(wall_s - at) > _SKEW_S:
        raise PeerFault("letter of another time; check both clocks", code="expired")


__all__ = [
    "ACCESS_MAX",
    "LETTER_BYTES_MAX",
    "Answer",
    "Letter",
    "LetterBody",
    "Request",
    "access_input",
    "answer_info",
    "check_time",
    "letter_info",
    "prove_access",
    "proven_tags",
]
