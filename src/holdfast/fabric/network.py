"""What every part of the fabric is given of the world and of the network it works in."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.limits.trust import WITNESSES_NEEDED
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.resolver import Names


@dataclass(frozen=True)
class Network:
    """`roots` are DER certificates whose pins were checked; `region` is the client's own word."""

    id: bytes
    domain: str
    roots: tuple[bytes, ...]
    clock: Clock
    entropy: Entropy
    resolver: Names
    region: str = ""
    k: int = WITNESSES_NEEDED
    """Owners whose cosignatures a changed record must bring, where the network has that many (D4);
    0 trusts HQ alone."""
