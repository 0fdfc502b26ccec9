"""Strict MessagePack and JSON at the border: parse once, trust inside.

Garbage of any kind raises `PeerFault` and nothing else. Unknown fields are refused within a
version (D19): every wire struct derives from `Message`, which forbids them.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import cache
from typing import Any, TypeVar, cast, dataclass_transform

import msgspec

from holdfast.errors import PeerFault

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=False):
    """Base of every wire message: immutable, a map with string keys, unknown keys refused."""


@cache
def _decoder(kind: Hashable) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


@cache
def _json_decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


_ENCODER = msgspec.msgpack.Encoder()
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


def pack(message: object) -> bytes:
    """MessagePack of `message`; fields in declaration order, so equal values give equal bytes."""
    return _ENCODER.encode(message)


def unpack(kind: type[T], data: bytes | memoryview, *, bytes_max: int) -> T:
    """Decode `data` as `kind`. Raises PeerFault on anything else, or past `bytes_max`."""
    if len(data) > bytes_max:
        raise PeerFault(f"message of {len(data)} bytes, limit {bytes_max}", code="too-large")
    try:
        return _decoder(cast(Hashable, kind)).decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise PeerFault(f"not a {getattr(kind, '__name__', kind)}: {error}") from error


def pack_json(message: object) -> bytes:
    """JSON of `message`; bytes as standard base64."""
    return msgspec.json.encode(message)


def unpack_json(kind: type[T], data: bytes, *, bytes_max: int) -> T:
    """Decode JSON `data` as `kind`. Raises PeerFault on anything else, past `bytes_max`, and on
    integers beyond 64 bits, which JSON can say and nothing of ours can keep."""
    if len(data) > bytes_max:
        raise PeerFault(f"message of {len(data)} bytes, limit {bytes_max}", code="too-large")
    try:
        message = _json_decoder(cast(Hashable, kind)).decode(data)
        if _LONG_NUMBER.search(data):
            _ENCODER.encode(message)
        return message  # type: ignore[no-any-return]
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise PeerFault(f"not a {getattr(kind, '__name__', kind)}: {error}") from error
