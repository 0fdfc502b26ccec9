"""Bytes on the wire: hashes, typed MessagePack, frames and signed objects (sections 1, 2 and 5)."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import msgpack
from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

CONTENT_TYPE = "application/vnd.holdfast.v1"


class WireError(Exception):
    """Bytes that are not what the protocol says they are."""


# --- Hashes --------------------------------------------------------------------------------------
def H(data: bytes) -> bytes:
    """BLAKE3, 32 bytes."""
    return blake3(data).digest()


def keyed(key: bytes, data: bytes) -> bytes:
    """`H(k; x)`: BLAKE3 keyed with 32 bytes."""
    return blake3(data, key=key).digest()


def derive(context: str, material: bytes) -> bytes:
    """BLAKE3 in derive-key mode."""
    return blake3(material, derive_key_context=context).digest()


def base32(data: bytes) -> str:
    """RFC 4648, lower case, no padding."""
    return base64.b32encode(data).decode().rstrip("=").lower()


def unbase32(text: str) -> bytes:
    """The other way."""
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


def public(key: Ed25519PrivateKey) -> bytes:
    """The 32 bytes of a key's public half."""
    return key.public_key().public_bytes_raw()


# --- MessagePack with a shape --------------------------------------------------------------------
class Maybe:
    """A shape, or nil."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape


SHAPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "text": str, "bin": bytes}
SHAPES |= {"signed": (bytes, 32, 64), "cursor": (int, 32)}  # arrays of fixed length


def _shape(word: str) -> Any:
    if word.endswith("?"):
        return Maybe(_shape(word[:-1]))
    if word.startswith("["):
        return [_shape(word[1:-1])]
    return int(word) if word.isdigit() else SHAPES[word]


def fields(text: str) -> dict[str, Any]:
    """The shape of a map, its fields in wire order. `16` is 16 bytes, `[x]` a list, `x?` or nil."""
    return {name: _shape(word) for name, word in (field.split(":") for field in text.split())}


SIGNED = SHAPES["signed"]
SHAPES["version"] = fields("epoch:int n:int")
SHAPES["logged"] = fields("index:int path:[32] note:bin signer:32 proof:bin")
SHAPES["staple"] = fields("signed:signed proof:bin logged:logged? overrides:[signed]")
SHAPES["class"] = fields(
    "name:text spki:bin group_bytes_max:int requests_per_s:float requests_burst:float "
    "expires_at:int"
)
SHAPES["witness"] = fields("identity:32 owner:text")
SHAPES["seat"] = fields("name:text node:32 addresses:[text] provider:text owner:text region:text")
SHAPES["revoked"] = fields("node:bin serial:text key_hash:bin reason:text at:int")
SHAPES["item"] = fields("sequence:int blob:32 size:int blob_class:int inline:bool")
SHAPES["receipt"] = fields("blob:32 sequence:int duplicate:bool index:int path:[32]")

SLOT_RECORD, REVOCATIONS, RECEIPT_BATCH, NODE_IDENTITY, SESSION = 1, 2, 3, 6, 7
WITNESSES, OVERRIDE, TICKET_KEYS = 11, 12, 13
ATTESTATION = 16
PRESENCE, SIGHTING = 22, 23
BODIES: dict[int, tuple[str, dict[str, Any]]] = {
    SLOT_RECORD: (
        "slot record",
        fields("network:16 slot:16 version:version issued_at:int relays:[seat] replicas:[seat]"),
    ),
    REVOCATIONS: (
        "revocations",
        fields("network:16 version:version issued_at:int entries:[revoked]"),
    ),
    RECEIPT_BATCH: (
        "receipt batch",
        fields("node:32 incarnation:16 root:32 size:int committed_at:float"),
    ),
    NODE_IDENTITY: ("node identity", fields("network:16 spki:bin")),
    WITNESSES: (
        "witnesses",
        fields("network:16 version:version issued_at:int witnesses:[witness]"),
    ),
    TICKET_KEYS: (
        "ticket keys",
        fields("network:16 version:version issued_at:int classes:[class]"),
    ),
    OVERRIDE: ("override", fields("network:16 slot:16 version:version record:32")),
    PRESENCE: ("presence", fields("device:32 n:int hosts:[text]")),
    SIGHTING: ("sighting", fields("device:32 n:int host:text")),
    SESSION: ("session", fields("challenge:bin node:32 leaf:32 slot:16")),
    ATTESTATION: (
        "attestation",
        fields("node:32 incarnation:16 tag:32 head:int blobs:[32] present:bin at:float"),
    ),
}

ERROR = fields("code:text message:text retry_after_s:float")
REQUESTS = {
    "hello": fields("versions:[int]"),
    "open": fields(
        "proof:signed peer:bool record:version? revocations:version? witnesses:version? ticket:bin"
    ),
    "push": fields("session:bin blob_class:int sizes:[int] tag:bin"),
    "pull": fields("session:bin incarnation:16 after:int items_max:int blob_class:int?"),
    "get": fields("session:bin blobs:[32] offset:int length:int tag:bin"),
    "have": fields("session:bin blobs:[32]"),
    "list": fields("session:bin born_from:int items_max:int after:cursor?"),
    "watch": fields("sessions:[bin] after:[int] wait_s:float"),
    "reconcile": fields("session:bin"),
    "report": fields("session:bin name:text first_failed_at:float region:text"),
    "attest": fields("session:bin blobs:[32]"),
}
REPLIES = {
    "hello": fields(
        "version:int identity:32 incarnation:16 challenge:bin wall_s:float revocations:version"
    ),
    "open": fields(
        "session:bin idle_s:float incarnation:16 head:int record:staple? "
        "revocations:staple? witnesses:staple? quota_bytes:int used_bytes:int"
    ),
    "push": fields("batch:signed receipts:[receipt]"),
    "pull": fields("items:[item] head:int more:bool"),
    "get": fields("sizes:[int]"),
    "have": fields("present:bin"),
    "list": fields("items:[item] born:[int] more:bool"),
    "watch": fields("heads:[int] records:[version?]"),
    "report": {},
    "attest": fields("attestation:signed"),
}


def check(shape: Any, value: Any, at: str = "message") -> None:
    """Refuse a value that has not the shape: unknown and missing fields included."""
    if isinstance(shape, Maybe):
        if value is not None:
            check(shape.shape, value, at)
    elif isinstance(shape, dict):
        if not isinstance(value, dict) or value.keys() != shape.keys():
            raise WireError(f"{at} is not a map of {', '.join(shape) or 'nothing'}")
        for name, inner in shape.items():
            check(inner, value[name], f"{at}.{name}")
    elif isinstance(shape, list | tuple):
        if not isinstance(value, list | tuple):
            raise WireError(f"{at} is not an array")
        if isinstance(shape, tuple) and len(shape) != len(value):
            raise WireError(f"{at} has not {len(shape)} elements")
        inners = shape if isinstance(shape, tuple) else shape * len(value)
        for inner, element in zip(inners, value, strict=True):
            check(inner, element, f"{at}[]")
    elif isinstance(shape, int):
        if not isinstance(value, bytes) or len(value) != shape:
            raise WireError(f"{at} is not {shape} bytes")
    elif type(value) is not shape and not (shape is float and type(value) is int):
        raise WireError(f"{at} is not {shape.__name__}")


def _ordered(shape: Any, value: Any) -> Any:
    """The value with the fields of every map in wire order."""
    if isinstance(shape, Maybe):
        return None if value is None else _ordered(shape.shape, value)
    if isinstance(shape, dict):
        return {name: _ordered(inner, value[name]) for name, inner in shape.items()}
    if isinstance(shape, list | tuple):
        inners = shape if isinstance(shape, tuple) else shape * len(value)
        return [_ordered(inner, element) for inner, element in zip(inners, value, strict=True)]
    return value


def pack(shape: Any, value: Any) -> bytes:
    """MessagePack of a value of this shape."""
    check(shape, value)
    return msgpack.packb(_ordered(shape, value), use_bin_type=True)


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    if len(dict(pairs)) != len(pairs):
        raise WireError("a field occurs twice")
    return dict(pairs)


def unpack(shape: Any, data: bytes) -> Any:
    """Read MessagePack of this shape; anything else, trailing bytes included, is refused."""
    try:
        value = msgpack.unpackb(data, raw=False, object_pairs_hook=_once)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise WireError(f"not MessagePack: {error}") from error
    check(shape, value)
    return value


# --- Frames --------------------------------------------------------------------------------------
def encode_frame(shape: Any, header: dict[str, Any], attachments: Sequence[bytes] = ()) -> bytes:
    """`u32 header length | header | attachments, back to back`."""
    head = pack(shape, header)
    return len(head).to_bytes(4, "big") + head + b"".join(attachments)


def decode_frame(shape: Any, frame: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, and all the attachments together."""
    end = 4 + int.from_bytes(frame[:4], "big")
    if len(frame) < 4 or len(frame) < end:
        raise WireError("the frame is cut short")
    return unpack(shape, frame[4:end]), frame[end:]


def split(attachments: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Attachments of these sizes; they must account for every byte."""
    bodies, at = [], 0
    for size in sizes:
        bodies.append(attachments[at : at + size])
        at += size
    if at != len(attachments):
        raise WireError("the attachments have not the sizes the header gives")
    return bodies


# --- Signed objects ------------------------------------------------------------------------------
def signing_input(kind: int, body: bytes) -> bytes:
    """What the signature covers."""
    return b"holdfast v1 " + BODIES[kind][0].encode() + b"\x00" + body


def sign(key: Ed25519PrivateKey, kind: int, fields: dict[str, Any]) -> list[bytes]:
    """`[body, signer, signature]` of a message."""
    body = bytes([kind]) + pack(BODIES[kind][1], fields)
    return [body, public(key), key.sign(signing_input(kind, body))]


def verify(kind: int, signed: Sequence[bytes]) -> dict[str, Any]:
    """The fields of a signed object whose signature holds. Says nothing about who the signer is."""
    body, signer, signature = signed
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, signing_input(kind, body))
    except (InvalidSignature, ValueError) as error:
        raise WireError("the signature does not hold") from error
    if body[:1] != bytes([kind]):
        raise WireError(f"the body is not of type {kind}")
    return unpack(BODIES[kind][1], body[1:])
