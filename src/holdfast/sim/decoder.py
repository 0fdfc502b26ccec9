"""What a decoder under test is: a function of bytes, its contract, and valid inputs."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from holdfast.errors import HoldfastError, PeerFault


class Decoder(msgspec.Struct, frozen=True):
    """`decode` must return or raise one of `refuses` for any input; `corpus` is valid. `covers`
    are the functions it tests, as `module.function` below `holdfast`."""

    name: str
    decode: Callable[[bytes], object]
    corpus: tuple[bytes, ...]
    covers: tuple[str, ...] = ()
    refuses: tuple[type[HoldfastError] | type[ValueError], ...] = (PeerFault,)


def some(found: object) -> object:
    """What was found, for decoders that say None of what is not theirs. Raises PeerFault."""
    if found is None:
        raise PeerFault("nothing of that kind")
    return found
