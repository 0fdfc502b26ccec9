"""The vectors of receipts, reconcile sums, lines and operations (sections 5 to 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import lines, log, merkle, tickets, wire

if TYPE_CHECKING:
    from .check_vectors import Checks

OPERATION = 4
LINES = {
    "network locator": ("hfloc", 1),
    "slot locator": ("hfloc", 1),
    "invite": ("hfinv", 3),
    "join token": ("hfjoin", 1),
    "grant": ("hfgrant", 1),
}


def receipts(checks: Checks, vector: dict[str, Any]) -> None:
    """receipts.json: leaf data, the root over it, and a path for each."""
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in vector["leaves"]]
    top = bytes.fromhex(vector["root"])
    checks.same(merkle.root(leaves), top, "root of a commit")
    for index, leaf in enumerate(leaves):
        path = [bytes.fromhex(step) for step in vector["paths"][index]]
        checks.same(path, merkle.path(leaves, index), "path of a receipt")
        checks.same(merkle.proves(leaf, index, len(leaves), path, top), True, "a receipt")


def reconcile(checks: Checks, vector: dict[str, Any]) -> None:
    """reconcile.json: the sum that stands for the items of a day."""
    total = 0
    for item in vector["items"]:
        data = bytes.fromhex(item["tag"] + item["blob"]) + bytes([item["class"]])
        total += int.from_bytes(wire.H(data), "little")
    checks.same(len(vector["items"]), vector["count"], "count of a day")
    checks.same((total % 2**256).to_bytes(32, "little").hex(), vector["total"], "sum of a day")


def copied_lines(checks: Checks, vector: dict[str, Any]) -> None:
    """lines.json: a version byte and an array of fields."""
    prefix, version = LINES[vector["name"]]
    data = bytes([version]) + bytes.fromhex(vector["fields"])
    checks.same(lines.decode(prefix, vector["line"]), data, f"data of a {vector['name']}")
    checks.same(lines.encode(prefix, data), vector["line"], f"line of a {vector['name']}")
    wrong = vector["line"][:-1] + ("q" if vector["line"][-1] != "q" else "p")
    checks.refuses(f"{vector['name']} with a typo", lambda: lines.decode(prefix, wrong))
    if vector["name"] == "invite":
        key = msgpack.unpackb(data[1:])[1]
        checks.same(wire.derive("holdfast v1 invite id", key).hex(), vector["id"], "invite id")
        secret = wire.derive("holdfast v1 invite mailbox", key)
        checks.same(secret.hex(), vector["mailbox_secret"], "mailbox secret")


def operations(checks: Checks, vector: dict[str, Any]) -> None:
    """operations.json: signed entries of a group's log, and how they are named."""
    body, signer, signature = msgpack.unpackb(bytes.fromhex(vector["signed"]))
    signed = b"holdfast v1 operation\x00" + body
    Ed25519PublicKey.from_public_bytes(signer).verify(signature, signed)
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signature, signed + b"\x00")
    except InvalidSignature:
        checks.made += 1
    checks.same(body[0], OPERATION, "type of an operation")
    checks.same(wire.H(body + signer + signature).hex(), vector["id"], "operation id")
    operation = msgpack.unpackb(body[1:])
    checks.same(operation["author"], signer, "author")
    checks.same(operation["group"].hex(), vector["group"], "group")
    checks.same(operation["kind"], vector["kind"], "kind")
    checks.same(operation["entries"].hex(), vector["entries"], "entries")
    checks.same(bool(operation["parents"]), vector["kind"] != "genesis", "parents")
    entries = msgpack.unpackb(operation["entries"])
    if vector["kind"] == "genesis":
        group = wire.derive("holdfast v1 group id", signer + entries["nonce"])
        checks.same(group, operation["group"], "group id")
    else:
        tags = [entry[0] for entry in entries["entries"]]
        checks.same(tags, [1, 2, 3, 4], "kinds of entry")
        _, _, _, _, plain, (chunk,) = entries["entries"][0][1:7]
        checks.same(chunk[5], wire.H(b"hello"), "hash of a chunk")
        checks.same((chunk[2], chunk[3], plain), (5, 5, 5), "sizes of a chunk")


def transparency(checks: Checks, vector: dict[str, Any]) -> None:
    """log.json: leaves, a checkpoint with its cosignatures, a statement's place in the log."""
    domain, log_key = vector["domain"], bytes.fromhex(vector["log_key"])
    staple = wire.unpack(wire.SHAPES["staple"], bytes.fromhex(vector["staple"]))
    logged, index = staple["logged"], vector["index"]
    data = log.leaf("slot record", wire.pack(wire.SIGNED, staple["signed"]))
    checks.same(data.hex(), vector["leaves"][index], "leaf of a record")
    checks.same(log.leaf("revocations", bytes(60_001)).hex(), vector["leaves"][1], "a large leaf")
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in vector["leaves"]]
    origin = f"{domain}/log/{vector['network']}"
    checks.same(logged["note"].decode(), vector["note"], "the note")
    size, top, text, rows = log.checkpoint(logged["note"], origin, log_key)
    checks.same((size, top.hex()), (len(leaves), vector["root"]), "the checkpoint")
    checks.same(merkle.root(leaves), top, "its root")
    proof = merkle.proves(merkle.leaf_hash(data), index, size, logged["path"], top)
    checks.same((proof, logged["index"]), (True, index), "the record is in the log")
    for owner, witness in vector["witnesses"].items():
        key = bytes.fromhex(witness)
        checks.same(log.cosigned_by(text, rows, domain, key), vector["at"], f"{owner} cosigned")
        other = text.replace(f"\n{size}\n", f"\n{size + 1}\n")
        checks.same(log.cosigned_by(other, rows, domain, key), None, f"{owner}, another log")
    forged = logged["note"].replace(f"\n{size}\n".encode(), f"\n{size + 1}\n".encode())
    checks.refuses("a changed checkpoint", lambda: log.checkpoint(forged, origin, log_key))


def blind_tickets(checks: Checks, vector: dict[str, Any]) -> None:
    """tickets.json: what HQ saw, what the device made of it, what a server verifies."""
    names = ("network", "spki", "prefix", "ticket", "signature", "blinded", "blind_signature")
    network, spki, prefix, ticket, signature, blinded, signed = (
        bytes.fromhex(vector[name]) for name in names
    )
    inverse = int(vector["inverse"], 16)
    checks.same(tickets.message(prefix, network).hex(), vector["message"], "ticket message")
    checks.same(tickets.unblind(signed, inverse, spki), signature, "unblinded signature")
    inside = tickets.unblinded_message(blinded, inverse, spki)
    checks.same(inside, tickets.recovered(signature, spki), "what was blinded is what was signed")
    checks.same(tickets.check(ticket, spki, network), prefix, "a ticket")
    checks.refuses("of another network", lambda: tickets.check(ticket, spki, bytes(16)))
    changed = ticket[:-1] + bytes([ticket[-1] ^ 1])
    checks.refuses("a changed ticket", lambda: tickets.check(changed, spki, network))
