"""Making and checking `Signed` envelopes with real keys."""

from __future__ import annotations

from typing import TypeVar

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import verify_ed25519
from holdfast.errors import PeerFault
from holdfast.wire.signed import Signed, Type, body_of, decode_body, signing_input

T = TypeVar("T")


def sign(key: SigningKey, kind: Type, message: object) -> Signed:
    """Sign `message` as `kind`."""
    body = body_of(kind, message)
    return Signed(body, key.public, key.sign(signing_input(body)))


def verify(kind: Type, shape: type[T], signed: Signed) -> T:
    """Check the signature over the received bytes, then decode. Raises PeerFault.

    Says nothing of who `signed.signer` is: the caller decides whether that key may speak.
    """
    if not verify_ed25519(signed.signer, signed.signature, signing_input(signed.body)):
        raise PeerFault("signature does not verify", code="signature")
    return decode_body(kind, shape, signed)
