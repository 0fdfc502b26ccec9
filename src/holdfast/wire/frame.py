"""One request or reply of the pool: `u32 big-endian header length | header | attachments`.

The header is a MessagePack map; attachments are raw blob bodies, back to back, their sizes named
in the header. No base64, no copies (D12). The HTTP body is exactly one frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from holdfast.errors import PeerFault
from holdfast.limits import HEADER_BYTES_MAX
from holdfast.wire.codec import pack, unpack

T = TypeVar("T")


def join(header: object, attachments: Iterable[bytes | memoryview] = ()) -> bytes:
    """The bytes of one frame."""
    head = pack(header)
    return b"".join((len(head).to_bytes(4, "big"), head, *attachments))


def split(
    kind: type[T], frame: bytes, *, header_bytes_max: int = HEADER_BYTES_MAX
) -> tuple[T, memoryview]:
    """Header and attachment bytes of `frame`. Raises PeerFault when it is not one frame."""
    if len(frame) < 4:
        raise PeerFault("frame shorter than its length field")
    size = int.from_bytes(frame[:4], "big")
    if size > header_bytes_max:
        raise PeerFault(f"header of {size} bytes, limit {header_bytes_max}", code="too-large")
    if len(frame) < 4 + size:
        raise PeerFault("frame ends inside its header")
    view = memoryview(frame)
    return unpack(kind, view[4 : 4 + size], bytes_max=header_bytes_max), view[4 + size :]


def cut(attachments: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cut the attachment bytes into pieces of `sizes`, which must add up exactly."""
    pieces, offset, end = [], 0, len(attachments)
    for size in sizes:
        if not 0 <= size <= end - offset:
            raise PeerFault("attachment sizes do not add up")
        pieces.append(attachments[offset : offset + size])
        offset += size
    if offset != end:
        raise PeerFault("attachment sizes do not add up")
    return pieces
