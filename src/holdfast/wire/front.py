"""Calls that a node carries and cannot read, and the sealed copy of the store it keeps (ADR 0044).

Below a path that follows from the root's fingerprint, every entry and core serves:

| method and path | body                 | answer                                             |
|-----------------|----------------------|----------------------------------------------------|
| GET  /keys      |                      | `FrontKeys`, JSON                                  |
| POST /ask       | a sealed `FrontCall` | a sealed `FrontAnswer`, or a `Problem` of the node |
| GET  /copy      |                      | `StoreCopy`, MessagePack                           |
| GET  /copy/head |                      | `Staple` of the `CopyHead`, MessagePack            |
| POST /hq        | `Staple`, MsgPack    | 204: the node dials the `HqAddresses` in it        |

A `Staple` inside is signed by a headquarters and believed like any other (`wire.staple`). What is
sealed and how: `crypto.sealedcall`.
"""

from __future__ import annotations

from typing import Final

from holdfast.crypto.certificates import fingerprint
from holdfast.crypto.pure import derive_key
from holdfast.crypto.rootset import only_roots
from holdfast.logic.fleet.model import NetworkId
from holdfast.wire.codec import Message
from holdfast.wire.records import Staple

PATH_BYTES: Final = 16
CALL_ID_BYTES: Final = 16
KEYS: Final = "/keys"
ASK: Final = "/ask"
COPY: Final = "/copy"
COPY_HEAD: Final = "/copy/head"
MOVED: Final = "/hq"
NO_HEADQUARTERS: Final = "no-headquarters"
"""The `error` of a node's own 503 when no headquarters answers it."""
METHODS: Final = frozenset({"GET", "POST", "PUT", "DELETE"})


def front_path(root_fingerprint: bytes) -> str:
    """The path below which a front answers: 128 bits that only those know who know the root."""
    return "/" + derive_key("holdfast v1 front path", root_fingerprint, PATH_BYTES).hex()


def front_paths(roots: tuple[bytes, ...]) -> tuple[str, ...]:
    """The path of every root (DER) in use."""
    return tuple(front_path(fingerprint(root)) for root in only_roots(roots))


class FrontKey(Message):
    """Body of a `Type.FRONT_KEY` statement: calls for its signer are sealed to `public` (1,216
    bytes of X-Wing) until `expires_at`, Unix seconds."""

    network: NetworkId
    public: bytes
    expires_at: int


class FrontKeys(Message):
    """Everything a caller must know who knows the root's fingerprint."""

    roots: tuple[bytes, ...]
    keys: tuple[Staple, ...]
    """One `FrontKey` of each headquarters."""
    revocations: Staple


class FrontCall(Message):
    """One call of HQ's API or operator's port. `authorization` is the header of that name.

    `id` names the call for ever: sent again, through whichever node, it is done once. `reply_key`
    is 32 random bytes, the same for the same `id`. `sent_at` is Unix seconds.
    """

    id: bytes
    method: str
    path: str
    body: bytes
    authorization: str
    reply_key: bytes
    sent_at: float


class FrontAnswer(Message):
    """What the API said, and when it was said."""

    status: int
    body: bytes
    at: float


class CopyHead(Message):
    """Body of a `Type.STORE_COPY` statement: of a sealed snapshot (`wire.snapshot`), its size and
    BLAKE3, when it was taken and of which revision."""

    network: NetworkId
    made_at: int
    revision: int
    epoch: int
    file_bytes: int
    digest: bytes


def age_order(head: CopyHead) -> tuple[int, int, int]:
    """Newer copies are greater: those of a restored headquarters above all of before (D3)."""
    return head.epoch, head.revision, head.made_at


class HqAddresses(Message):
    """Body of a `Type.HQ_ADDRESSES` statement: where headquarters is from now on, `host:port`s.

    A node follows one that is newer by (epoch, issued_at) than the last it followed: that is how a
    headquarters which was made anew elsewhere finds the nodes of the old one.
    """

    network: NetworkId
    addresses: tuple[str, ...]
    epoch: int
    issued_at: int


class StoreCopy(Message):
    """A sealed snapshot and headquarters' word that it is one."""

    head: Staple
    sealed: bytes
