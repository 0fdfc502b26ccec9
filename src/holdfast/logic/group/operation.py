"""One signed entry of a group's log (D18), and how it is named.

An operation is the body of a `Type.OPERATION` signature. The floor above signs and verifies; here
is the struct, its id and what may be said about it without a key:

    operation id = BLAKE3(body | signer | signature), the bytes as they travelled (D9)
    group id     = derive("holdfast v1 group id", founder's device key | nonce 32)

so a group id names its own founder: only the founder's key can sign the genesis of that group.

`entries` is a byte string, the MessagePack of a struct that depends on `kind` and `version`. A
device that does not know that pair can still verify, store and pass on the operation (D19).

| kind    | version | entries                       | module    |
|---------|---------|-------------------------------|-----------|
| genesis | 1       | `members.Genesis`             | members   |
| member  | 1       | `members.MemberEntries`       | members   |
| folder  | 1       | `folder.FolderEntries`        | folder    |
| keyring | 1       | `keyring.KeyringEntries`      | keyring   |
| friends | 1       | `friends.FriendEntries`       | friends   |
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, TypeVar

import msgspec

from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import OPERATION_BYTES_MAX, PARENTS_MAX

T = TypeVar("T")

Bytes32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
"""A key, hash or id; any other length is refused while decoding."""
OperationId = bytes
VersionId = tuple[OperationId, int]
"""(operation id, index of the entry in it): names one version of one key for good."""


class Kind(StrEnum):
    """Kinds of operation this program folds."""

    GENESIS = "genesis"
    MEMBER = "member"
    FOLDER = "folder"
    KEYRING = "keyring"
    FRIENDS = "friends"


FORMAT = 1
"""The newest format this program folds; members advertise theirs, writers use the lowest (D19)."""
VERSIONS: dict[str, int] = {
    Kind.GENESIS: 1,
    Kind.MEMBER: 1,
    Kind.FOLDER: 1,
    Kind.KEYRING: 1,
    Kind.FRIENDS: 1,
}


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`parents` are the heads its author knew, sorted; empty for the genesis alone. `n` counts the
    author's operations in this group from 1: two of one number prove that the author lies. A root,
    which may be typed in on several machines, does not count: 0."""

    group: Bytes32
    author: Bytes32
    parents: Annotated[tuple[Bytes32, ...], msgspec.Meta(max_length=PARENTS_MAX)]
    kind: Annotated[str, msgspec.Meta(max_length=32)]
    version: Annotated[int, msgspec.Meta(ge=1, le=2**16)]
    entries: Annotated[bytes, msgspec.Meta(max_length=OPERATION_BYTES_MAX)]
    n: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0

    def foldable(self) -> bool:
        """Whether this program knows the kind in that version."""
        return self.version <= VERSIONS.get(self.kind, 0)


def operation_id(body: bytes, signer: bytes, signature: bytes) -> OperationId:
    """The name of a signed operation, from its bytes as they travel."""
    assert len(signer) == 32
    assert len(signature) == 64
    return hash_bytes(body + signer + signature)


def group_id(founder: bytes, nonce: bytes) -> bytes:
    """The id of the group that `founder` (Ed25519 public key) starts with `nonce`."""
    assert len(founder) == 32
    assert len(nonce) == 32
    return derive_key("holdfast v1 group id", founder + nonce)


def check_operation(operation: Operation, group: bytes, signer: bytes) -> None:
    """What must hold for any operation of `group` signed by `signer`. Raises PeerFault."""
    if operation.author != signer:
        raise PeerFault("operation signed by a key that is not its author", code="signature")
    if operation.group != group:
        raise PeerFault("operation of another group", code="forbidden")
    if list(operation.parents) != sorted(set(operation.parents)):
        raise PeerFault("operation whose parents are not sorted and distinct")
    if (operation.kind == Kind.GENESIS) == bool(operation.parents):
        raise PeerFault("an operation has parents exactly when it is not the genesis")


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def encode_entries(entries: object) -> bytes:
    """MessagePack of an entries struct; equal values give equal bytes."""
    return _ENCODER.encode(entries)


def decode_entries(shape: type[T], data: bytes) -> T:
    """Decode `entries` strictly. Raises PeerFault."""
    decoder = _DECODERS.get(shape)
    if decoder is None:
        decoder = _DECODERS[shape] = msgspec.msgpack.Decoder(shape)
    try:
        return decoder.decode(data)  # type: ignore[no-any-return]
    except (msgspec.DecodeError, ValueError, RecursionError, OverflowError) as error:
        raise PeerFault(f"not {shape.__name__}: {error}") from error
