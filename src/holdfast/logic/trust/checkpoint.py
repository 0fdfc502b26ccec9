"""Checkpoints of the transparency log: origin, size and root, as the text of a signed note.

    <origin>
    <size, decimal>
    <root, base64>

The origin is `<domain>/log/<network id, hex>`; a witness's name is
`<domain>/witness/<node id, base32>`. Source: c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import binascii
from typing import Final

import msgspec

from holdfast.crypto.pure import base32
from holdfast.errors import PeerFault
from holdfast.logic.trust.merkle import HASH_BYTES

_SIZE_DIGITS_MAX: Final = 18


class Checkpoint(msgspec.Struct, frozen=True):
    """What a log says of itself."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed."""
        root = binascii.b2a_base64(self.root, newline=False).decode()
        return f"{self.origin}\n{self.size}\n{root}\n"


def log_origin(domain: str, network: bytes) -> str:
    """The origin of a network's log, and the name of its key."""
    return f"{domain}/log/{network.hex()}"


def witness_name(domain: str, node: bytes) -> str:
    """The name of a node's cosigning key."""
    return f"{domain}/witness/{base32(node)}"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint's text; lines after the third are refused. Raises PeerFault."""
    rows = text.split("\n")
    if len(rows) != 4 or rows[3]:
        raise PeerFault("not a checkpoint: three lines")
    origin, size, root = rows[:3]
    if not (size.isascii() and size.isdigit()) or len(size) > _SIZE_DIGITS_MAX:
        raise PeerFault("not a checkpoint: no size")
    if size != str(int(size)) or not origin:
        raise PeerFault("not a checkpoint: no size")
    try:
        digest = binascii.a2b_base64(root.encode(), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise PeerFault("not a checkpoint: no root") from error
    found = Checkpoint(origin, int(size), digest)
    if len(digest) != HASH_BYTES or found.text() != text:
        raise PeerFault("not a checkpoint: no root")
    return found
