"""Byte vectors of every wire format, made from fixed inputs: `python -m tests.vectors.generate`.

Each file is a list of cases with inputs and outputs in hex, so that another implementation can
check itself without this one. `test_vectors.py` fails when the code no longer makes the same bytes:
wire format changes are made on purpose or not at all.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa
from tests.vectors import meeting, people, proofs

from holdfast.crypto.blindrsa import BlindSigningKey
from holdfast.crypto.blob import blob_id, seal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32, derive_key, hash_bytes, keyed_hash, node_id
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.logic.group.folder import Chunk, Deleted, Directory, File, FolderEntries, Link
from holdfast.logic.group.members import (
    Genesis,
)
from holdfast.logic.group.operation import (
    Kind,
    Operation,
    encode_entries,
    group_id,
    operation_id,
)
from holdfast.logic.trust import merkle
from holdfast.logic.trust.checkpoint import Checkpoint, log_origin, witness_name
from holdfast.logic.trust.directory import Leaf
from holdfast.logic.trust.note import (
    Note,
    cosignature_input,
    cosignature_line,
    signature_line,
)
from holdfast.rim.store.summary import item_hash
from holdfast.wire import frame, pool
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.hq import NodeIdentity
from holdfast.wire.invite import Invite
from holdfast.wire.locator import Locator
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.records import (
    Logged,
    Override,
    Revocations,
    Revoked,
    Staple,
    WitnessKey,
    WitnessSet,
)
from holdfast.wire.signed import Type, signing_input
from holdfast.wire.tickets import Grant, Ticket, TicketClass, TicketKeys, ticket_message
from holdfast.wire.token import JoinToken

HERE = Path(__file__).parent
NETWORK = bytes(range(16))
SLOT = bytes(range(16, 32))
BORN = 20_778


def seed(label: str) -> bytes:
    """A fixed 32-byte secret for `label`."""
    return hash_bytes(b"holdfast vector " + label.encode())


def hashes() -> list[dict[str, Any]]:
    return [
        {"name": "H", "input": b"abc".hex(), "output": hash_bytes(b"abc").hex()},
        {
            "name": "H keyed",
            "key": seed("key").hex(),
            "input": b"abc".hex(),
            "output": keyed_hash(seed("key"), b"abc").hex(),
        },
        {
            "name": "derive",
            "context": "holdfast v1 era content",
            "input": seed("era").hex(),
            "output": derive_key("holdfast v1 era content", seed("era")).hex(),
        },
        {
            "name": "node id",
            "identity": SigningKey(seed("node")).public.hex(),
            "output": node_id(SigningKey(seed("node")).public).hex(),
            "text": base32(node_id(SigningKey(seed("node")).public)),
        },
    ]


def eras() -> list[dict[str, Any]]:
    cases = []
    for number in (0, 1, 4_294_967_295):
        era = Era(seed(f"era {number}"), NETWORK, number)
        cases.append(
            {
                "secret": era.secret.hex(),
                "network": NETWORK.hex(),
                "number": number,
                "content_key": era.content_key.hex(),
                "salt_key": era.salt_key.hex(),
                "access_seed": era.access.seed.hex(),
                "access_public": era.access.public.hex(),
                "tag": era.tag.hex(),
            }
        )
    return cases


def blobs() -> list[dict[str, Any]]:
    cases = []
    for name, payload, kind, index, total in (
        ("empty", b"", 1, 0, 1),
        ("short", b"hello, holdfast", 1, 0, 1),
        ("second of three", b"middle", 2, 1, 3),
        ("fills 1 KiB exactly", bytes(1024 - 67), 2, 0, 1),
        ("one byte into 4 KiB", bytes(1024 - 66), 2, 0, 1),
    ):
        era = Era(seed("era 1"), NETWORK, 1)
        blob = seal(era, kind, payload, BORN, index=index, total=total)
        cases.append(
            {
                "name": name,
                "era_secret": era.secret.hex(),
                "network": NETWORK.hex(),
                "era_number": 1,
                "class": kind,
                "index": index,
                "total": total,
                "born": BORN,
                "payload": payload.hex(),
                "blob": blob.hex(),
                "id": blob_id(blob).hex(),
            }
        )
    return cases


def _seat(name: str, provider: str) -> Seat:
    node = SigningKey(seed(name)).node
    return Seat(name, node, ("127.0.0.1:4433",), provider, "ada", name.split("-")[1])


def example_record() -> SlotRecord:
    """The slot record that several vectors share."""
    providers = ("alder", "birch", "cedar")
    return SlotRecord(
        network=NETWORK,
        slot=SLOT,
        version=Version(1, 7),
        issued_at=1_795_000_000,
        relays=tuple(_seat(f"relay-eu-00{i + 1}", p) for i, p in enumerate(providers)),
        replicas=tuple(_seat(f"replica-eu-00{i + 1}", p) for i, p in enumerate(providers)),
    )


def example_body() -> bytes:
    """What HQ signs of the example record."""
    return sign(SigningKey(seed("hq")), Type.SLOT_RECORD, example_record()).body


def example_witnesses() -> WitnessSet:
    """Two owners, one node each."""
    keys = [
        WitnessKey(SigningKey(seed(f"witness {owner}")).public, owner) for owner in ("ada", "bo")
    ]
    return WitnessSet(NETWORK, Version(1, 3), 1_795_000_000, tuple(keys))


def signed() -> list[dict[str, Any]]:
    node = SigningKey(seed("node"))
    hq = SigningKey(seed("hq"))
    era = Era(seed("era 1"), NETWORK, 1)
    revoked = Revoked(node.node, "42", b"", "lost", 1_795_000_000)
    messages: list[tuple[Type, SigningKey, Any]] = [
        (Type.SLOT_RECORD, hq, example_record()),
        (
            Type.REVOCATIONS,
            hq,
            Revocations(NETWORK, Version(1, 2), 1_795_000_000, (revoked,)),
        ),
        (
            Type.RECEIPT_BATCH,
            node,
            pool.ReceiptBatch(node.node, bytes(16), seed("root"), 3, 1_795_000_000.5),
        ),
        (Type.NODE_IDENTITY, node, NodeIdentity(NETWORK, b"spki")),
        (Type.WITNESSES, hq, example_witnesses()),
        (Type.TICKET_KEYS, hq, example_ticket_keys()),
        (
            Type.OVERRIDE,
            node,
            Override(NETWORK, SLOT, Version(1, 7), hash_bytes(example_body())),
        ),
        (
            Type.SESSION,
            era.access,
            pool.SessionProof(seed("challenge"), node.node, seed("leaf"), SLOT),
        ),
        (
            Type.ATTESTATION,
            node,
            pool.Attestation(
                *(node.node, bytes(16), seed("tag"), 7, (seed("blob"), seed("other"))),
                *(b"\x01\x00", 1_795_000_000.5),
            ),
        ),
    ]
    cases = []
    for kind, key, message in messages:
        envelope = sign(key, kind, message)
        cases.append(
            {
                "type": int(kind),
                "context": kind.name.lower().replace("_", " "),
                "seed": key.seed.hex(),
                "body": envelope.body.hex(),
                "signing_input": signing_input(envelope.body).hex(),
                "signer": envelope.signer.hex(),
                "signature": envelope.signature.hex(),
                "signed": pack(envelope).hex(),
            }
        )
    return cases


def example_open() -> pool.OpenRequest:
    """An opening by somebody who has a record, an old list, no witnesses and a ticket."""
    proof = pool.SessionProof(seed("challenge"), seed("node"), seed("leaf"), SLOT)
    signed = sign(Era(seed("era 1"), NETWORK, 1).access, Type.SESSION, proof)
    return pool.OpenRequest(signed, False, Version(1, 7), Version(1, 2), None, b"ticket")


def frames() -> list[dict[str, Any]]:
    session = bytes(range(32))
    requests: list[tuple[str, Any, tuple[bytes, ...]]] = [
        ("hello", pool.HelloRequest((1,)), ()),
        ("open", example_open(), ()),
        ("push", pool.PushRequest(session, pool.BlobClass.LOG, (5, 3)), (b"first", b"2nd")),
        ("pull", pool.PullRequest(session, bytes(16), 0, 100), ()),
        ("get", pool.GetRequest(session, (seed("blob"),)), ()),
        ("have", pool.HaveRequest(session, (seed("blob"),)), ()),
        ("list", pool.ListRequest(session, BORN, 100), ()),
        ("watch", pool.WatchRequest((session,), (3,), 30.0), ()),
        ("report", pool.ReportRequest(session, "relay-eu-042", 1_795_000_000.0, "eu"), ()),
        ("attest", pool.AttestRequest(session, (seed("blob"),)), ()),
        ("error reply", pool.ErrorReply("session", "open again"), ()),
    ]
    return [
        {
            "name": name,
            "attachments": [body.hex() for body in bodies],
            "frame": frame.join(header, bodies).hex(),
        }
        for name, header, bodies in requests
    ]


def receipts() -> list[dict[str, Any]]:
    """Leaves of one commit, their tree and the audit path of each."""
    cases = []
    for count in (1, 2, 3, 7):
        rows = [(seed(f"blob {n}"), seed("tag"), n + 1, 1024, BORN) for n in range(count)]
        leaves = [receipt_leaf(*row) for row in rows]
        root, audit = merkle.paths(leaves)
        cases.append(
            {
                "leaves": [leaf.hex() for leaf in leaves],
                "root": root.hex(),
                "paths": [[step.hex() for step in path] for path in audit],
            }
        )
    return cases


def reconcile() -> list[dict[str, Any]]:
    """Items of one day and the sum that stands for them."""
    cases = []
    for count in (0, 1, 300):
        items = [(seed("tag"), seed(f"item {n}"), 1 + n % 2) for n in range(count)]
        total = sum(item_hash(*item) for item in items) % 2**256
        cases.append(
            {
                "items": [
                    {"tag": tag.hex(), "blob": blob.hex(), "class": kind}
                    for tag, blob, kind in items
                ],
                "count": count,
                "total": total.to_bytes(32, "little").hex(),
            }
        )
    return cases


def log() -> list[dict[str, Any]]:
    """A log of five leaves, its checkpoint with two cosignatures, and the place of a record."""
    hq, domain, at = SigningKey(seed("hq")), "example.net", 1_795_000_100
    record = sign(hq, Type.SLOT_RECORD, example_record())
    leaves = [Leaf("certificate", seed(f"leaf {n}")).data() for n in range(4)]
    leaves.insert(3, Leaf("slot record", pack(record)).data())
    leaves[1] = Leaf("revocations", bytes(60_001)).data()
    tree, origin = merkle.Tree(leaves), log_origin(domain, NETWORK)
    text = Checkpoint(origin, len(leaves), tree.root()).text()
    lines = [signature_line(origin, hq.public, hq.sign(text.encode()))]
    for key in example_witnesses().witnesses:
        secret = SigningKey(seed(f"witness {key.owner}"))
        name, signature = witness_name(domain, key.node), secret.sign(cosignature_input(text, at))
        lines.append(cosignature_line(name, key.identity, at, signature))
    staple = Staple(
        record,
        b"der",
        Logged(3, tree.path(3), Note(text, tuple(lines)).render(), hq.public, b"der"),
    )
    return [
        {
            "domain": domain,
            "network": NETWORK.hex(),
            "leaves": [leaf.hex() for leaf in leaves],
            "large_body": "00 60001 times",
            "root": tree.root().hex(),
            "from": 2,
            "consistency": [step.hex() for step in tree.consistency(2)],
            "origin": origin,
            "at": at,
            "log_key": hq.public.hex(),
            "witnesses": {k.owner: k.identity.hex() for k in example_witnesses().witnesses},
            "note": staple.logged.note.decode() if staple.logged else "",
            "index": 3,
            "staple": pack(staple).hex(),
        }
    ]


def ticket_key() -> BlindSigningKey:
    """The key of RFC 9474's test vectors."""
    vector = json.loads((HERE.parent / "crypto" / "rfc9474.json").read_text())[0]
    p, q, d, n, e = (int(vector[name], 16) for name in ("p", "q", "d", "n", "e"))
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    numbers = rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(e, n))
    return BlindSigningKey(numbers.private_key())


def example_ticket_keys() -> TicketKeys:
    """One class."""
    spki = ticket_key().public.spki
    item = TicketClass("plain", spki, 1 << 30, 200.0, 4_000.0, 1_802_000_000)
    return TicketKeys(NETWORK, Version(0, 1), 1_795_000_000, (item,))


def tickets() -> list[dict[str, Any]]:
    """A ticket from blinding to what travels."""
    key, prefix = ticket_key(), seed("prefix")
    message, salt = ticket_message(prefix, NETWORK), (seed("salt") * 2)[:48]
    factor = (seed("factor") * 17)[: key.public.factor_bytes]
    blinded, inverse = key.public.blind(message, salt, factor)
    signed = key.sign_blinded(blinded, factor)
    signature = key.public.finalize(message, signed, inverse)
    return [
        {
            "network": NETWORK.hex(),
            "spki": key.public.spki.hex(),
            "prefix": prefix.hex(),
            "message": message.hex(),
            "salt": salt.hex(),
            "inverse": f"{inverse:0{2 * len(blinded)}x}",
            "blinded": blinded.hex(),
            "blind_signature": signed.hex(),
            "signature": signature.hex(),
            "ticket": bytes(Ticket(key.public.id, prefix, signature)).hex(),
        }
    ]


def lines() -> list[dict[str, Any]]:
    """The three lines a person copies, and what they say."""
    record = example_record()
    pin = seed("root pin")
    bare = Locator(NETWORK, "example.net", (pin,), (), b"", (), (), ("192.0.2.1:53",))
    locator = bare.with_record(record)
    invite = Invite(locator, seed("invite"), SigningKey(seed("device")).public, 1_795_000_600)
    token = JoinToken(
        NETWORK,
        ("192.0.2.1:7400",),
        (pin,),
        Role.RELAY,
        "relay-eu-001",
        "",
        1_795_000_600,
        seed("t"),
    )
    grant = Grant(NETWORK, "plain", 5, 1_795_000_600, seed("grant"))
    return [
        {"name": "network locator", "line": str(bare), "fields": pack(bare).hex()},
        {"name": "slot locator", "line": str(locator), "fields": pack(locator).hex()},
        {
            "name": "invite",
            "line": str(invite),
            "fields": pack(invite).hex(),
            "id": invite.id.hex(),
            "mailbox_secret": derive_key("holdfast v1 invite mailbox", invite.key).hex(),
        },
        {"name": "grant", "line": str(grant), "fields": pack(grant).hex()},
        {"name": "join token", "line": str(token), "fields": pack(token).hex()},
    ]


def operations() -> list[dict[str, Any]]:
    """A group's genesis and a folder operation with one entry of each kind."""
    device = SigningKey(seed("device"))
    genesis = Genesis(seed("nonce"), "ada's laptop")
    group = group_id(device.public, genesis.nonce)
    chunk = Chunk(0, 0, 5, 5, 0, hash_bytes(b"hello"))
    entries = FolderEntries(
        (seed("pack"),),
        (seed("replaced"),),
        (
            File(b"a/hello.txt", ((0, 3),), 0o644, 1_795_000_000_000_000_000, 5, (chunk,)),
            Directory(b"a", (), 0o755),
            Link(b"a/link", (), b"hello.txt"),
            Deleted(b"old\xff", ((0, 0),)),
        ),
    )
    cases: list[dict[str, Any]] = []
    parents: tuple[bytes, ...] = ()
    for kind, body in ((Kind.GENESIS, genesis), (Kind.FOLDER, entries)):
        n = len(cases) + 1
        operation = Operation(group, device.public, parents, kind, 1, encode_entries(body), n)
        envelope = sign(device, Type.OPERATION, operation)
        name = operation_id(envelope.body, envelope.signer, envelope.signature)
        cases.append(
            {
                "kind": str(kind),
                "seed": device.seed.hex(),
                "group": group.hex(),
                "entries": operation.entries.hex(),
                "signed": pack(envelope).hex(),
                "id": name.hex(),
            }
        )
        parents = (name,)
    return cases


FILES: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "hashes": hashes,
    "eras": eras,
    "blobs": blobs,
    "signed": signed,
    "frames": frames,
    "receipts": receipts,
    "reconcile": reconcile,
    "lines": lines,
    "log": log,
    "tickets": tickets,
    "operations": operations,
    "evidence": proofs.evidence,
}


FILES |= people.FILES | meeting.FILES


def render(name: str) -> str:
    """The JSON text of one vector file."""
    return json.dumps(FILES[name](), indent=1) + "\n"


def main() -> None:
    for name in FILES:
        (HERE / f"{name}.json").write_text(render(name))
    sys.stdout.write(f"{len(FILES)} files of vectors written\n")


if __name__ == "__main__":
    main()
