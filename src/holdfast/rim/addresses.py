"""Which addresses this machine has on the networks it is on."""

from __future__ import annotations

import socket
from typing import Final

_NOWHERE: Final = (("192.0.2.1", 9), ("2001:db8::1", 9))
"""Documentation addresses: choosing a route to them sends nothing."""


def own_addresses() -> tuple[str, ...]:
    """Addresses others of the same network reach this machine at; loopback when there is none."""
    found = []
    for family, nowhere in zip((socket.AF_INET, socket.AF_INET6), _NOWHERE, strict=True):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(nowhere)
                found.append(str(probe.getsockname()[0]))
        except OSError:
            continue
    return tuple(found) or ("127.0.0.1",)
