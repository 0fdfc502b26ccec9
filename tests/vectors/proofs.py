"""Proofs of misbehaviour, good ones and near misses, and a note of receipts."""

from __future__ import annotations

from typing import Any

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.logic.trust import merkle
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.evidence import Evidence, HeldReceipt, Kind, ReceiptNote, pack_evidence
from holdfast.wire.pool import Attestation, Receipt, ReceiptBatch
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.signed import Signed, Type

NODE, OTHER = SigningKey(b"n" * 32), SigningKey(b"o" * 32)
TAG, STORE, NEWER = b"t" * 32, b"1" * 16, b"2" * 16
A, B = hash_bytes(b"a"), hash_bytes(b"b")
BORN = 20_778
DAY_S = 86_400
AT = BORN * DAY_S + 3_600.0


def receipt(
    blob: bytes = A, sequence: int = 5, *, key: SigningKey = NODE, store: bytes = STORE
) -> HeldReceipt:
    """A receipt for `blob`, second of three in its commit."""
    leaves = [
        receipt_leaf(one, TAG, sequence + n - 1, 1_024, BORN)
        for n, one in enumerate((bytes(32), blob, bytes(32)))
    ]
    root, paths = merkle.paths(leaves)
    batch = ReceiptBatch(key.node, store, root, 3, AT)
    one = Receipt(blob, sequence, False, 1, tuple(paths[1]))
    return HeldReceipt(sign(key, Type.RECEIPT_BATCH, batch), one, TAG, 1_024, BORN)


def attestation(
    *,
    head: int = 9,
    present: bool = False,
    at: float = AT + 60,
    key: SigningKey = NODE,
    store: bytes = STORE,
) -> Signed:
    """What the server says later of blob `A`."""
    said = Attestation(key.node, store, TAG, head, (B, A), bytes((1, present)), at)
    return sign(key, Type.ATTESTATION, said)


def cases() -> dict[str, tuple[Evidence, bool]]:
    """Name -> (evidence, whether it proves anything)."""

    def both(kind: Kind, one: HeldReceipt, said: Signed) -> Evidence:
        return Evidence(1, kind, (one,), (said,))

    two = (receipt(), receipt(B))
    bad_path = msgspec.structs.replace(receipt(), size=1_025)
    early = attestation(head=9, at=AT + 10)
    return {
        "conflict": (Evidence(1, Kind.CONFLICT, two, ()), True),
        "conflict, another store": (
            Evidence(1, Kind.CONFLICT, (receipt(), receipt(B, store=NEWER)), ()),
            False,
        ),
        "conflict, one blob twice": (Evidence(1, Kind.CONFLICT, (two[0], two[0]), ()), False),
        "conflict, a receipt that proves nothing": (
            Evidence(1, Kind.CONFLICT, (bad_path, two[1]), ()),
            False,
        ),
        "denial": (both(Kind.DENIAL, receipt(), attestation()), True),
        "denial, of what is there": (
            both(Kind.DENIAL, receipt(), attestation(present=True)),
            False,
        ),
        "denial, before it was stored": (
            both(Kind.DENIAL, receipt(), attestation(at=AT - 1)),
            False,
        ),
        "denial, after its time": (
            both(Kind.DENIAL, receipt(), attestation(at=AT + 7 * DAY_S)),
            False,
        ),
        "denial, by another node": (both(Kind.DENIAL, receipt(), attestation(key=OTHER)), False),
        "lost": (both(Kind.LOST, receipt(), attestation(store=NEWER)), True),
        "lost, by the same store": (both(Kind.LOST, receipt(), attestation()), False),
        "rollback": (both(Kind.ROLLBACK, receipt(), attestation(head=4)), True),
        "rollback, that knows it": (both(Kind.ROLLBACK, receipt(), attestation(head=5)), False),
        "regress": (Evidence(1, Kind.REGRESS, (), (early, attestation(head=8))), True),
        "regress, that grew": (Evidence(1, Kind.REGRESS, (), (early, attestation(head=10))), False),
        "wrong statements": (Evidence(1, Kind.REGRESS, (receipt(),), (early,)), False),
    }


def evidence() -> list[dict[str, Any]]:
    """The cases of evidence.json; the last is a note."""
    found = [
        {
            "name": name,
            "kind": str(proof.kind),
            "evidence": pack_evidence(proof).hex(),
            "id": hash_bytes(pack_evidence(proof)).hex(),
            "holds": holds,
            "node": NODE.node.hex(),
        }
        for name, (proof, holds) in cases().items()
    ]
    note = ReceiptNote((receipt(), receipt(B, 6)))
    found.append({"name": "note", "note": pack(note).hex(), "blobs": [A.hex(), B.hex()]})
    return found
