"""Persons and their devices: statements by a person root (D7).

A person is an Ed25519 root grown from a seed phrase; a device is a member by the root's signed
statement, or out by a later one. No statement expires. They lie in the person's keyring log, whose
group is founded by the root itself, so its id follows from the words alone:

    keyring group id = derive("holdfast v1 group id", person root | nonce),
    nonce            = derive("holdfast v1 keyring nonce", person root)
"""

from __future__ import annotations

from holdfast.crypto.pure import derive_key, node_id
from holdfast.errors import PeerFault
from holdfast.limits import LABEL_BYTES_MAX
from holdfast.wire.codec import Message
from holdfast.wire.envelope import verify
from holdfast.wire.signed import Signed, Type

READER = "reader"
CARRIER = "carrier"
DEVICE_NAME_BYTES_MAX = LABEL_BYTES_MAX


class DeviceStatement(Message):
    """Body of a `Type.DEVICE_STATEMENT` by the person root: this device is mine, or no longer.

    `roles` are `reader` (holds keys) and `carrier` (holds ciphertext); none: the device is out.
    `tls_key` is the BLAKE3 of its TLS key's SPKI, empty while it serves nobody. The statement with
    the highest `n` for a device counts.
    """

    person: bytes
    device: bytes
    name: str
    roles: tuple[str, ...]
    n: int
    at: int
    tls_key: bytes = b""


def verify_statement(signed: Signed) -> DeviceStatement:
    """The statement, if the person root it names signed it. Raises PeerFault."""
    statement = verify(Type.DEVICE_STATEMENT, DeviceStatement, signed)
    if statement.person != signed.signer or len(statement.device) != 32:
        raise PeerFault("device statement by somebody else than its person", code="signature")
    if not set(statement.roles) <= {READER, CARRIER}:
        raise PeerFault("device statement with a role that does not exist")
    size = len(statement.name.encode(errors="surrogatepass"))
    if size > DEVICE_NAME_BYTES_MAX or not statement.name.isprintable():
        raise PeerFault("device statement with a name that is too long or not printable")
    return statement


def keyring_nonce(person: bytes) -> bytes:
    """Nonce of the genesis of a person's keyring."""
    return derive_key("holdfast v1 keyring nonce", person)


def person_id(person: bytes) -> bytes:
    """How a person is named to people: BLAKE3 of the root key, as nodes are."""
    return node_id(person)
