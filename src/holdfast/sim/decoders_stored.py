"""Decoders of what lies on disks, in files a person writes, in lines, certificates and DNS."""

from __future__ import annotations

from typing import Any, Final

import dns.message
import dns.rcode
import msgspec

from holdfast.crypto.certificates import (
    create_root,
    csr_spki,
    issue_intermediate,
    issue_leaf,
    make_csr,
    verify_chain,
)
from holdfast.crypto.certinfo import cert_info, from_pem, parse_uri, to_pem
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import base32, base32_decode, hash_bytes
from holdfast.crypto.shares import join as join_shares
from holdfast.crypto.shares import parse_plan
from holdfast.crypto.shares import split as split_shares
from holdfast.crypto.tlskey import TlsKey, load_spki
from holdfast.device.folder.recipe import read_segment
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.config import HqConfig, parse_config
from holdfast.logic.audit import ExportLine, import_line
from holdfast.logic.fleet.model import Role, Seat, SlotRecord, Version
from holdfast.logic.group.folder import (
    Chunk,
    Deleted,
    Directory,
    File,
    FolderEntries,
    Link,
    RecipeSegment,
)
from holdfast.logic.group.members import Genesis
from holdfast.logic.group.operation import (
    Operation,
    check_operation,
    decode_entries,
    encode_entries,
)
from holdfast.logic.group.paths import check_path
from holdfast.rim.dns.records import View, build_view
from holdfast.rim.dns.server import Responder
from holdfast.rim.store.record import HEADER_BYTES, Record, pack_record, scan, unpack_record
from holdfast.sim.decoder import Decoder, some
from holdfast.sim.samples import sample
from holdfast.wire.address import split_address
from holdfast.wire.bech32 import decode_line
from holdfast.wire.ceremony import check_request, make_request, parse_request
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.evidence import (
    Evidence,
    HeldReceipt,
    Kind,
    ReceiptNote,
    check_evidence,
    is_note,
    pack_evidence,
    unpack_evidence,
    unpack_note,
)
from holdfast.wire.invite import Invite, parse_invite
from holdfast.wire.locator import Locator
from holdfast.wire.person import DeviceStatement, verify_statement
from holdfast.wire.pool import Attestation, Receipt, ReceiptBatch
from holdfast.wire.signed import Type, unpack_signed
from holdfast.wire.token import JoinToken, parse_token

NETWORK: Final = bytes(16)
NOW: Final = 1_795_000_000.0
KEY: Final = SigningKey(b"k" * 32)
"""Signs everything here that is signed."""


def decoders() -> tuple[Decoder, ...]:
    """All of them."""
    return (*_lines(), *_certificates(), *_disk(), *_log(), *_proofs(), *_dns(), *_config())


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _lines() -> list[Decoder]:
    bare = Locator(NETWORK, "example.net", (bytes(32),), (), b"", (), ())
    relays, replicas = (
        tuple(
            Seat(
                f"{role}-eu-{n:03}",
                hash_bytes(f"{role}{n}".encode()),
                ("192.0.2.1:1",),
                f"p{n}",
                "o",
                "eu",
            )
            for n in range(3)
        )
        for role in (Role.RELAY, Role.REPLICA)
    )
    record = SlotRecord(NETWORK, b"s" * 16, Version(0, 1), int(NOW), relays, replicas)
    invite = Invite(bare.with_record(record), bytes(32), KEY.public, int(NOW) + 600)
    token = JoinToken(
        NETWORK, ("192.0.2.1:1",), (bytes(32),), Role.RELAY, "r-1", "", int(NOW) + 600, bytes(32)
    )
    csr = make_csr(TlsKey.from_bytes(b"t" * 32))
    request = make_request(NETWORK, KEY, csr)

    def ceremony(data: bytes) -> object:
        return check_request(parse_request(_text(data)), NETWORK)

    return [
        Decoder(
            "invite line",
            lambda data: parse_invite(_text(data), NOW),
            (str(invite).encode(),),
            ("wire.invite.parse_invite", "wire.locator.parse_locator"),
        ),
        Decoder(
            "join token line",
            lambda data: parse_token(_text(data)),
            (str(token).encode(),),
            ("wire.token.parse_token",),
        ),
        Decoder(
            "any line",
            lambda data: decode_line("hfjoin", _text(data)),
            (str(token).encode(),),
            ("wire.bech32.decode_line",),
        ),
        Decoder(
            "certificate request line",
            ceremony,
            (str(request).encode(),),
            ("wire.ceremony.parse_request", "wire.ceremony.check_request"),
        ),
        Decoder(
            "address",
            lambda data: split_address(_text(data)),
            (b"192.0.2.1:7443", b"[2001:db8::1]:7443", b"host.example:1"),
            ("wire.address.split_address",),
        ),
        *_short_lines(),
    ]


def _short_lines() -> list[Decoder]:
    return [
        Decoder(
            "base32",
            lambda data: base32_decode(_text(data)),
            (base32(bytes(32)).encode(),),
            ("crypto.pure.base32_decode",),
            (PeerFault, ValueError),
        ),
        Decoder(
            "share cards",
            lambda data: join_shares(_text(data).split("\n")),
            ("\n".join(split_shares(b"s" * 32, 2, 3)[:2]).encode(),),
            ("crypto.shares.join",),
            (PeerFault, UsageError),
        ),
        Decoder(
            "share plan",
            lambda data: parse_plan(_text(data)),
            (b"2of3", b"3OF5"),
            ("crypto.shares.parse_plan",),
            (PeerFault, UsageError),
        ),
    ]


def _certificates() -> list[Decoder]:
    root = create_root(bytes(32), NETWORK, "example.net", NOW)
    middle = issue_intermediate(root, TlsKey.from_bytes(b"i" * 32), NETWORK, KEY.public, NOW)
    key = TlsKey.from_bytes(b"l" * 32)
    leaf = issue_leaf(
        middle,
        spki=key.spki(),
        network=NETWORK,
        role=Role.RELAY,
        node=KEY.node,
        dns_name="relay-eu-001.example.net",
        serial=7,
        now=NOW,
        days=90,
    )
    chain = to_pem([leaf, middle.certificate])

    def judged(data: bytes) -> object:
        return verify_chain([root.certificate], from_pem(data), NOW + 60)

    def leaf_of(data: bytes) -> object:
        return verify_chain([root.certificate], [data, middle.certificate], NOW + 60)

    return [
        Decoder(
            "certificate",
            cert_info,
            (leaf, middle.certificate, root.certificate),
            ("crypto.certinfo.cert_info",),
        ),
        Decoder("certificates, PEM", from_pem, (chain,), ("crypto.certinfo.from_pem",)),
        Decoder("chain, verified", judged, (chain,), ("crypto.certificates.verify_chain",)),
        Decoder("leaf, verified", leaf_of, (leaf,), ("crypto.certificates.verify_chain",)),
        Decoder(
            "certificate request",
            csr_spki,
            (make_csr(key),),
            ("crypto.certificates.csr_spki",),
        ),
        Decoder("public key", load_spki, (key.spki(),), ("crypto.tlskey.load_spki",)),
        Decoder(
            "node name",
            lambda data: some(parse_uri(_text(data))),
            (f"holdfast://{NETWORK.hex()}/relay/{base32(KEY.node)}".encode(),),
            ("crypto.certinfo.parse_uri",),
        ),
    ]


def _disk() -> list[Decoder]:
    bodies = [bytes([n]) * 200 for n in range(3)]
    records = [
        pack_record(
            Record(1, len(b), 20_000, 1_795_000_000, n, bytes(16), bytes(32), hash_bytes(b))
        )
        + b
        for n, b in enumerate(bodies)
    ]
    segment = b"".join(records)

    def scanned(data: bytes) -> object:
        found = list(scan(lambda at, size: data[at : at + size], 0, len(data)))
        assert all(hash_bytes(data[f.offset : f.end]) == f.record.blob for f in found)
        if sum(HEADER_BYTES + f.record.size for f in found) != len(data):
            raise PeerFault("some of it is damaged")
        return found

    return [
        Decoder(
            "segment record",
            lambda data: some(unpack_record(data[:HEADER_BYTES])),
            (records[0],),
            ("rim.store.record.unpack_record",),
        ),
        Decoder("segment", scanned, (segment, records[0]), ("rim.store.record.scan",)),
        Decoder(
            "audit export line",
            import_line,
            (msgspec.json.encode(sample(ExportLine)),),
            ("logic.audit.import_line",),
            (PeerFault, ValueError),
        ),
    ]


def _log() -> list[Decoder]:
    chunk = Chunk(0, 0, 5, 5, 0, hash_bytes(b"hello"))
    entries = FolderEntries(
        (bytes(32),),
        (bytes(32),),
        (
            File(b"a/b", ((0, 0),), 0o644, 1_795_000_000_000_000_000, 5, (chunk,)),
            Directory(b"a", (), 0o755),
            Link(b"l", (), b"a/b"),
            Deleted(b"old", ((0, 0),)),
        ),
    )
    genesis = encode_entries(Genesis(bytes(32), "laptop"))
    operation = Operation(bytes(32), KEY.public, (bytes(32),), "folder", 1, encode_entries(entries))
    signed = pack(sign(KEY, Type.OPERATION, operation))
    recipe = encode_entries(RecipeSegment((bytes(32),), (chunk,)))
    mine = DeviceStatement(KEY.public, bytes(32), "laptop", ("reader",), 1, int(NOW))
    statement = pack(sign(KEY, Type.DEVICE_STATEMENT, mine))

    def taken(data: bytes) -> object:
        envelope = unpack_signed(data)
        found = verify(Type.OPERATION, Operation, envelope)
        check_operation(found, bytes(32), envelope.signer)
        return decode_entries(FolderEntries, found.entries)

    return [
        Decoder(
            "operation",
            taken,
            (signed,),
            ("logic.group.operation.check_operation", "logic.group.operation.decode_entries"),
        ),
        Decoder(
            "folder entries",
            lambda data: decode_entries(FolderEntries, data),
            (encode_entries(entries),),
        ),
        Decoder("genesis", lambda data: decode_entries(Genesis, data), (genesis,)),
        Decoder("recipe segment", read_segment, (recipe,), ("device.folder.recipe.read_segment",)),
        Decoder("path", check_path, (b"a/b c/d",), ("logic.group.paths.check_path",)),
        Decoder(
            "device statement",
            lambda data: verify_statement(unpack_signed(data)),
            (statement,),
            ("wire.person.verify_statement",),
        ),
    ]


def _proofs() -> list[Decoder]:
    leaf_batch = ReceiptBatch(KEY.node, bytes(16), bytes(32), 1, NOW)
    held = HeldReceipt(
        sign(KEY, Type.RECEIPT_BATCH, leaf_batch),
        Receipt(bytes(32), 1, False, 0, ()),
        bytes(32),
        1_024,
        20_775,
    )
    said = [
        sign(
            KEY,
            Type.ATTESTATION,
            Attestation(KEY.node, bytes(16), bytes(32), head, (bytes(32),), b"\x00", NOW + n),
        )
        for n, head in enumerate((9, 3))
    ]
    regress = pack_evidence(Evidence(1, Kind.REGRESS, (), tuple(said)))

    def noted(data: bytes) -> object:
        return is_note(data) and unpack_note(data)

    return [
        Decoder(
            "proof of misbehaviour",
            lambda data: check_evidence(unpack_evidence(data)),
            (regress,),
            ("wire.evidence.unpack_evidence", "wire.evidence.check_evidence"),
        ),
        Decoder(
            "note of receipts",
            noted,
            (pack(ReceiptNote((held,))),),
            ("wire.evidence.unpack_note", "wire.evidence.is_note"),
        ),
    ]


class _Zone:
    """A zone that does not change."""

    def __init__(self, view: View) -> None:
        self.view = view


def _dns() -> list[Decoder]:
    view = build_view("example.net", ["192.0.2.1"], [], serial=1, ttl_s=60)
    responder = Responder(_Zone(view))  # type: ignore[arg-type]
    queries: list[bytes] = []
    for name, kind in (("example.net", "SOA"), ("relay-eu-001.example.net", "TXT")):
        query: Any = dns.message.make_query(name, kind, use_edns=True)
        query.id = 7
        queries.append(query.to_wire())

    def ask(data: bytes) -> object:
        replies = [responder.respond(data, datagram=udp) for udp in (True, False)]
        for reply in replies:
            if reply is None or reply[3] & 0x0F == dns.rcode.FORMERR:
                raise PeerFault("no question")
        return replies

    return [Decoder("DNS question", ask, tuple(queries), ("rim.dns.server.Responder.respond",))]


def _config() -> list[Decoder]:
    config = HqConfig(domain="example.net", listen="127.0.0.1:1", dns_listen="127.0.0.1:2")

    return [
        Decoder(
            "hq.json",
            parse_config,
            (msgspec.json.encode(config),),
            ("hq.config.parse_config",),
            (PeerFault, UsageError),
        ),
    ]
