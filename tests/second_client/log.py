"""The transparency log: leaves, checkpoints as signed notes, cosignatures (section 9)."""

from __future__ import annotations

import base64
import hashlib

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .wire import H, WireError, base32

LOG_KEY, COSIGNATURE = 1, 4


def leaf(kind: str, body: bytes) -> bytes:
    """The data of a leaf; a large body is logged by its hash."""
    if len(body) > 60_000:
        kind, body = f"{kind} by hash", H(body)
    return msgpack.packb([kind, body], use_bin_type=True)


def _key_id(name: str, kind: int, public: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + public).digest()[:4]


def _holds(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def checkpoint(note: bytes, origin: str, log_key: bytes) -> tuple[int, bytes, str, list[str]]:
    """(size, root, text, signature lines) of a checkpoint that the log's key signed."""
    text, _, rest = note.decode().rpartition("\n\n")
    text, rows = text + "\n", rest.splitlines()
    first, size, root = text.splitlines()
    for row in rows:
        dash, name, data = row.split(" ")
        raw = base64.b64decode(data, validate=True)
        ours = dash == "\u2014" and name == first == origin
        ours = ours and raw[:4] == _key_id(name, LOG_KEY, log_key)
        if ours and _holds(log_key, raw[4:], text.encode()):
            return int(size), base64.b64decode(root), text, rows
    raise WireError("the log did not sign this checkpoint")


def cosigned_by(text: str, rows: list[str], domain: str, witness: bytes) -> int | None:
    """When that witness (identity key) cosigned the text; None when it did not."""
    name = f"{domain}/witness/{base32(H(witness))}"
    for row in rows:
        _, who, data = row.split(" ")
        raw = base64.b64decode(data, validate=True)
        at, signature = int.from_bytes(raw[4:12], "big"), raw[12:]
        over = f"cosignature/v1\ntime {at}\n{text}".encode()
        theirs = who == name and raw[:4] == _key_id(name, COSIGNATURE, witness)
        if theirs and _holds(witness, signature, over):
            return at
    return None
