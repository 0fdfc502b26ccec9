"""What HQ writes down about the access layer: one row per control-store key.

| key                              | row                                        |
|----------------------------------|--------------------------------------------|
| /access/cells/<cell>             | Cell                                       |
| /access/members/<member>         | Member                                     |
| /access/devices/<device>         | Device                                     |
| /access/tokens/<hash hex>        | id of the device with this subscription    |
| /access/policies/<server name>   | ExitPolicy                                 |
| /access/counters/<node>/<incarnation hex> | CounterRow: highest totals seen   |
| /access/usage/<member>           | Usage                                      |
| /access/cores/<server name>      | CoreUsage                                  |
| /access/crls/<hash of an intermediate> | its X.509 revocation list, PEM     |
| /access/loads/<server name>      | how busy a core is, when that has changed  |

This registry knows members; the pool's slots know tags. They have no key in common, and nothing
here names one of theirs.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.pure import base32, hash_bytes
from holdfast.logic.access.accounting import Total
from holdfast.logic.fleet.model import NodeId

ACCESS: Final = "/access/"
CELLS: Final = "/access/cells/"
MEMBERS: Final = "/access/members/"
DEVICES: Final = "/access/devices/"
SUBSCRIPTIONS: Final = "/access/tokens/"
POLICIES: Final = "/access/policies/"
COUNTERS: Final = "/access/counters/"
USAGE: Final = "/access/usage/"
CORES: Final = "/access/cores/"
CRLS: Final = "/access/crls/"
LOADS: Final = "/access/loads/"
LOAD_STEP: Final = 0.25
"""A core's load is written down when it has changed by this much: trembling moves nobody."""


class CounterRow(msgspec.Struct, frozen=True):
    """The highest totals that one incarnation of a node's spool has reported."""

    totals: dict[str, Total]


class CoreUsage(msgspec.Struct, frozen=True):
    """What a core has carried in `month` (months since year 0), and at which counter values of
    which incarnation that was known: the base of the limits that the core itself keeps."""

    month: int = 0
    reserve: int = 0
    own: int = 0
    incarnation: bytes = b""
    reserve_counted: int = 0
    own_counted: int = 0


def token_key(token: str) -> str:
    """Where the device of a subscription token is written."""
    return SUBSCRIPTIONS + hash_bytes(token.encode()).hex()


def counters_key(node: NodeId, incarnation: bytes) -> str:
    """Where the counters of one incarnation of a node's spool are written."""
    return f"{COUNTERS}{base32(node)}/{incarnation.hex()}"
