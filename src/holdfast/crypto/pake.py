"""SPAKE2: one key from one short code, and one guess at it for whoever stands between.

The library is magic-wormhole's `spake2` (pure Python over the Ed25519 group, in use there since
2016). It is not constant-time; a code is used once and dies with the conversation, so there is
nothing to learn for the next one. Both sides must confirm the key before they use it: a wrong code
gives two different keys and no error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from spake2 import SPAKE2_A, SPAKE2_B, SPAKEError  # type: ignore[import-untyped]

from holdfast.crypto.pure import derive_key
from holdfast.errors import PeerFault

_HOST: Final = b"holdfast pair host"
_GUEST: Final = b"holdfast pair guest"


class Pake:
    """One side of one exchange. `message` goes to the other side; `finish` takes its."""

    def __init__(self, code: bytes, draw: Callable[[int], bytes], *, host: bool) -> None:
        """`draw` gives random bytes."""
        side = SPAKE2_A if host else SPAKE2_B
        self._side = side(code, idA=_HOST, idB=_GUEST, entropy_f=draw)
        self.message: bytes = bytes(self._side.start())

    def finish(self, message: bytes) -> bytes:
        """The shared key, 32 bytes; another one for a wrong code. Raises PeerFault."""
        try:
            shared = bytes(self._side.finish(message))
        except (SPAKEError, ValueError, AssertionError) as error:
            raise PeerFault("no message of a pairing", code="malformed") from error
        return derive_key("holdfast v1 pair key", shared)
