"""Proofs of misbehaviour and notes of receipts (section 12), judged from PROTOCOL.md alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import merkle, wire

if TYPE_CHECKING:
    from .check_vectors import Checks

RECEIPT_BATCH, ATTESTATION = 3, 16
TTL_DAYS, DAY_S = 7, 86_400
wire.SHAPES["held"] = wire.fields("batch:signed receipt:receipt tag:32 size:int born:int")
EVIDENCE = wire.fields("version:int kind:text receipts:[held] attestations:[signed] record:staple?")
NOTE = wire.fields("receipts:[held]")


def receipt(held: dict[str, Any]) -> dict[str, Any]:
    """The batch of a receipt that proves its blob. Raises WireError."""
    batch = wire.verify(RECEIPT_BATCH, held["batch"])
    if wire.H(held["batch"][1]) != batch["node"]:
        raise wire.WireError("signed by another node")
    one = held["receipt"]
    leaf = merkle.leaf_data(one["blob"], held["tag"], one["sequence"], held["size"], held["born"])
    hashed = merkle.leaf_hash(leaf)
    if not merkle.proves(hashed, one["index"], batch["size"], one["path"], batch["root"]):
        raise wire.WireError("no such leaf")
    return batch


def attestation(signed: list[bytes]) -> dict[str, Any]:
    """A server's word. Raises WireError."""
    said = wire.verify(ATTESTATION, signed)
    if wire.H(signed[1]) != said["node"] or len(said["blobs"]) != len(said["present"]):
        raise wire.WireError("no attestation")
    return said


def holds(proof: dict[str, Any]) -> bool:
    """Whether the statements contradict each other as their kind says."""
    try:
        batches = [receipt(held) for held in proof["receipts"]]
        said = [attestation(signed) for signed in proof["attestations"]]
    except wire.WireError:
        return False
    kind, shape = proof["kind"], (len(batches), len(said))
    if kind == "conflict" and shape == (2, 0):
        one, other = proof["receipts"]
        places = [
            (b["node"], b["incarnation"], h["tag"], h["receipt"]["sequence"])
            for b, h in zip(batches, (one, other), strict=True)
        ]
        return places[0] == places[1] and one["receipt"]["blob"] != other["receipt"]["blob"]
    if kind == "regress" and shape == (0, 2):
        early, late = sorted(said, key=lambda s: s["at"])
        same = all(early[k] == late[k] for k in ("node", "incarnation", "tag"))
        return same and early["at"] < late["at"] and late["head"] < early["head"]
    if shape != (1, 1) or kind not in ("denial", "lost", "rollback"):
        return False
    batch, word, held = batches[0], said[0], proof["receipts"][0]
    same_store = batch["incarnation"] == word["incarnation"]
    if batch["node"] != word["node"] or held["tag"] != word["tag"]:
        return False
    if word["at"] < batch["committed_at"]:
        return False
    if kind == "rollback":
        return same_store and word["head"] < held["receipt"]["sequence"]
    denied = [b for b, flag in zip(word["blobs"], word["present"], strict=True) if flag != 1]
    in_time = word["at"] < (held["born"] + TTL_DAYS) * DAY_S
    return same_store == (kind == "denial") and in_time and held["receipt"]["blob"] in denied


def vectors(checks: Checks, vector: dict[str, Any]) -> None:
    """evidence.json."""
    if vector["name"] == "note":
        note = wire.unpack(NOTE, bytes.fromhex(vector["note"]))
        blobs = [held["receipt"]["blob"].hex() for held in note["receipts"]]
        checks.same(blobs, vector["blobs"], "receipts of a note")
        for held in note["receipts"]:
            receipt(held)
        return
    data = bytes.fromhex(vector["evidence"])
    proof = wire.unpack(EVIDENCE, data)
    checks.same(wire.pack(EVIDENCE, proof), data, f"bytes of {vector['name']}")
    checks.same(wire.H(data).hex(), vector["id"], f"id of {vector['name']}")
    checks.same(proof["kind"], vector["kind"], "kind")
    checks.same(holds(proof), vector["holds"], vector["name"])
