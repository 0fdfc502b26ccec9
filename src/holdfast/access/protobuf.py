"""Just enough protobuf to write Xray's requests and read its counters."""

from __future__ import annotations

from collections.abc import Iterator

from holdfast.errors import PeerFault


def varint(value: int) -> bytes:
    """An unsigned integer, seven bits a byte."""
    assert value >= 0
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, value: int | str | bytes) -> bytes:
    """One field: an integer as varint, text and bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of every field of a message. Raises PeerFault for what is none."""
    at = 0
    while at < len(data):
        tag, at = _varint_at(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint_at(data, at)
            yield tag >> 3, value
        elif kind == 2:
            size, at = _varint_at(data, at)
            if at + size > len(data):
                raise PeerFault("a protobuf field that ends past its message")
            yield tag >> 3, data[at : at + size]
            at += size
        else:
            raise PeerFault(f"a protobuf field of kind {kind}")


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise PeerFault("a protobuf number without an end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
