"""Every decoder of bytes from outside, by name, with valid inputs to grow bad ones from.

The contract of each: any input is decoded or refused with `PeerFault`, in time and memory
proportional to its length. A decoder that is not listed here has not been fuzzed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final

import msgspec

from holdfast.crypto.blob import read_header, seal, unseal
from holdfast.crypto.era import Era
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.logic.fleet.model import Load, Role, Seat, SlotRecord, Tier, Version
from holdfast.logic.trust.checkpoint import Checkpoint, parse_checkpoint
from holdfast.logic.trust.note import (
    Note,
    cosignature_input,
    cosignature_line,
    parse_line,
    parse_note,
    signature_line,
)
from holdfast.logic.trust.tiles import entries_of, parse_entries, parse_tile
from holdfast.sim import decoders_kept, decoders_stored
from holdfast.sim.decoder import Decoder
from holdfast.sim.samples import messages_of, sample
from holdfast.wire import cloud, control, frame, hq, pool, tickets
from holdfast.wire.codec import pack, pack_json, unpack, unpack_json
from holdfast.wire.envelope import sign, verify
from holdfast.wire.locator import Locator, parse_locator
from holdfast.wire.records import (
    Logged,
    Override,
    Revocations,
    Revoked,
    Staple,
    WitnessKey,
    WitnessSet,
)
from holdfast.wire.release import Knobs, Release
from holdfast.wire.signed import Type, decode_body, unpack_signed

NETWORK: Final = bytes(16)
BODY_BYTES_MAX: Final = 1 << 20


def _record() -> SlotRecord:
    seats = tuple(
        Seat(f"relay-eu-{i:03}", bytes(32), ("127.0.0.1:4433",), f"p{i}", "ada", "eu")
        for i in range(3)
    )
    return SlotRecord(NETWORK, bytes(16), Version(1, 1), 1_795_000_000, seats, seats)


def _framed() -> list[Decoder]:
    """One decoder per verb, each way, with its attachments cut as the server cuts them."""
    session = bytes(32)
    key = SigningKey(bytes(32))
    item = pool.Item(1, bytes(32), 5, pool.BlobClass.LOG, True)
    proof = sign(key, Type.SESSION, pool.SessionProof(bytes(32), bytes(32), bytes(32), bytes(16)))
    batch = sign(key, Type.RECEIPT_BATCH, pool.ReceiptBatch(bytes(32), bytes(16), bytes(32), 1, 1))
    logged = Logged(1, (bytes(32),), b"note", bytes(32), b"der")
    override = sign(key, Type.OVERRIDE, Override(NETWORK, bytes(16), Version(1, 1), bytes(32)))
    staple = Staple(sign(key, Type.SLOT_RECORD, _record()), b"der", logged, (override,))
    receipt = pool.Receipt(bytes(32), 1, False, 0, (bytes(32),))
    summary = pool.DaySummary(20_000, 1, bytes(32))
    messages: list[tuple[Any, bytes]] = [
        (pool.HelloRequest((1,)), b""),
        (pool.HelloReply(1, bytes(32), bytes(16), bytes(32), 1.5, Version(1, 1)), b""),
        (pool.OpenRequest(proof, False, Version(1, 2), Version(1, 1), None, b"ticket"), b""),
        (pool.OpenReply(session, 600.0, bytes(16), 3, staple, staple, None, 1, 1), b""),
        (pool.PushRequest(session, pool.BlobClass.BULK, (5, 3)), b"firstend"),
        (pool.PushReply(batch, (receipt,)), b""),
        (pool.PullRequest(session, bytes(16), 0, 10), b""),
        (pool.PullReply((item,), 1, False), b"hello"),
        (pool.GetRequest(session, (bytes(32),)), b""),
        (pool.GetReply((5,)), b"hello"),
        (pool.HaveRequest(session, (bytes(32),)), b""),
        (pool.HaveReply(b"\x01"), b""),
        (pool.ListRequest(session, 20_000, 10, (20_000, bytes(32))), b""),
        (pool.ListReply((item,), (20_000,), False), b""),
        (pool.WatchRequest((session,), (3,), 30.0), b""),
        (pool.WatchReply((3,), (None,)), b""),
        (pool.ReconcileRequest(session, 20_000, 3), b""),
        (pool.ReconcileReply((summary,)), b""),
        (pool.ReportRequest(session, "relay-eu-001", 1.0, "eu"), b""),
        (pool.AttestRequest(session, (bytes(32),)), b""),
        (pool.ErrorReply("session", "open again"), b""),
    ]
    return [_frame_decoder(message, tail) for message, tail in messages]


def _frame_decoder(message: Any, tail: bytes) -> Decoder:
    kind = type(message)

    def decode(data: bytes) -> object:
        header, rest = frame.split(kind, data)
        sizes = getattr(header, "sizes", None)
        if sizes is not None:
            return frame.cut(rest, sizes)
        return header

    return Decoder(f"frame {kind.__name__}", decode, (frame.join(message, (tail,)),))


def _json() -> list[Decoder]:
    """The bodies of HQ's API and of the cloud API."""
    load = Load()
    probe = hq.ProbeResult("relay-eu-001", bytes(32), False, 3, 1.0)
    messages: list[Any] = [
        hq.RootReply(NETWORK, "example.net", (b"der",)),
        hq.JoinRequest(bytes(32), b"csr", bytes(32), bytes(64), ("127.0.0.1:1",)),
        hq.JoinReply((b"a",), bytes(32), "n", Role.RELAY, "eu", "p", "o", (b"r",), 30.0),
        hq.RenewRequest(b"csr", bytes(64)),
        hq.Application(Role.RELAY, "ada", "because"),
        hq.SlotRequest("eu"),
        hq.Heartbeat(1, 2, Version(1, 1), load, ("127.0.0.1:1",), "42", 1, True, "0.1"),
        hq.HeartbeatReply(1, Version(1, 1), 1),
        hq.Alert("a", bytes(32), Tier.RED, 11, 40, ("eu",), 1.0, probe, 2.0),
        hq.LeaveRequest("moving"),
        hq.CheckpointReply(b"note", bytes(32), b"der", 3, (bytes(32),)),
        hq.Cosignature(3, "line"),
        hq.LogFault("forked", b"one", b"other"),
        tickets.TicketRequest(bytes(32), bytes(32), (bytes(256),)),
        tickets.TicketReply((bytes(256),), 3),
        hq.Problem("forbidden", "no"),
        cloud.CreateServer("intent", "eu", "token"),
        cloud.ServerList((cloud.Server("intent", "eu", "127.0.0.2", "running", 1.0),)),
        cloud.CloudLog((cloud.CloudEvent(1.0, "create", "intent"),)),
        cloud.KeyOrder(("servers",), "headquarters"),
        cloud.KeyMade("0123456789abcdef", "f" * 64),
        cloud.KeyList((cloud.KeyInfo("0123456789abcdef", ("servers",), 1.0),)),
    ]
    return [_json_decoder(message) for message in messages]


def _json_decoder(message: Any) -> Decoder:
    kind = type(message)

    def decode(data: bytes) -> object:
        return unpack_json(kind, data, bytes_max=BODY_BYTES_MAX)

    covers = ("wire.codec.unpack_json",)
    return Decoder(f"json {kind.__name__}", decode, (pack_json(message),), covers)


def _signed() -> list[Decoder]:
    key = SigningKey(bytes(32))
    record = sign(key, Type.SLOT_RECORD, _record())
    entry = Revoked(bytes(32), "42", b"", "lost", 1)
    revocations = sign(key, Type.REVOCATIONS, Revocations(NETWORK, Version(1, 1), 1, (entry,)))
    named = WitnessSet(NETWORK, Version(1, 1), 1, (WitnessKey(bytes(32), "ada"),))
    witnesses = sign(key, Type.WITNESSES, named)
    about = Release(NETWORK, "0.2.0", "0.2.0", 1, 2, 2, bytes(32), 9, Knobs(requests_per_s=5.0), 1)
    release = sign(key, Type.RELEASE, about)
    return [
        Decoder(
            "release, body",
            lambda data: decode_body(
                Type.RELEASE, Release, msgspec.structs.replace(release, body=data)
            ).check(),
            (release.body,),
        ),
        Decoder(
            "signed envelope",
            unpack_signed,
            (pack(record), pack(revocations)),
            ("wire.signed.unpack_signed",),
        ),
        Decoder(
            "slot record, verified",
            lambda data: verify(Type.SLOT_RECORD, SlotRecord, unpack_signed(data)),
            (pack(record),),
        ),
        Decoder(
            "slot record, body",
            lambda data: decode_body(
                Type.SLOT_RECORD, SlotRecord, msgspec.structs.replace(record, body=data)
            ),
            (record.body,),
            ("wire.signed.decode_body",),
        ),
        Decoder(
            "revocations, body",
            lambda data: decode_body(
                Type.REVOCATIONS, Revocations, msgspec.structs.replace(revocations, body=data)
            ),
            (revocations.body,),
        ),
        Decoder(
            "witness set, body",
            lambda data: decode_body(
                Type.WITNESSES, WitnessSet, msgspec.structs.replace(witnesses, body=data)
            ),
            (witnesses.body,),
        ),
        Decoder(
            "staple",
            lambda data: unpack(Staple, data, bytes_max=BODY_BYTES_MAX),
            (pack(Staple(record, b"der")),),
        ),
    ]


def _blobs() -> list[Decoder]:
    era = Era(hash_bytes(b"fuzz"), NETWORK)
    corpus = tuple(seal(era, 1, payload, 20_000) for payload in (b"", b"hello"))
    return [
        Decoder("blob header", read_header, corpus, ("crypto.blob.read_header",)),
        Decoder("blob", lambda data: unseal(era, 1, data), corpus, ("crypto.blob.unseal",)),
    ]


def _lines() -> list[Decoder]:
    locator = Locator(NETWORK, "example.net", (bytes(32),), (), b"", (), ())
    line = str(locator).encode()
    return [
        Decoder("locator line", lambda data: parse_locator(data.decode("latin-1")), (line,)),
    ]


def _log() -> list[Decoder]:
    key, text = SigningKey(bytes(32)), Checkpoint("a/log/00", 3, bytes(32)).text()
    lines = (
        signature_line("a/log/00", key.public, key.sign(text.encode())),
        cosignature_line("a/witness/b", key.public, 1, key.sign(cosignature_input(text, 1))),
    )
    note = Note(text, lines)
    ticket = tickets.Ticket(bytes(32), bytes(32), bytes(256))
    grant = str(tickets.Grant(NETWORK, "plain", 3, 1, bytes(32)))
    return [
        Decoder("signed note", parse_note, (note.render(),), ("logic.trust.note.parse_note",)),
        Decoder(
            "signature line",
            _text(parse_line),
            tuple(str(line).encode() for line in lines),
            ("logic.trust.note.parse_line",),
        ),
        Decoder(
            "checkpoint",
            _text(parse_checkpoint),
            (text.encode(),),
            ("logic.trust.checkpoint.parse_checkpoint",),
        ),
        Decoder(
            "tile path",
            _text(parse_tile),
            (b"0/x001/x234/067", b"entries/000.p/7"),
            ("logic.trust.tiles.parse_tile",),
        ),
        Decoder("ticket", tickets.parse_ticket, (bytes(ticket),), ("wire.tickets.parse_ticket",)),
        Decoder(
            "grant line",
            _text(tickets.parse_grant),
            (grant.encode(),),
            ("wire.tickets.parse_grant",),
        ),
        Decoder(
            "tile of entries",
            parse_entries,
            (entries_of([b"one", b"two"]),),
            ("logic.trust.tiles.parse_entries",),
        ),
    ]


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: parse(data.decode(errors="replace"))


def _control() -> list[Decoder]:
    desired = hq.Desired(1, 1, "relay-eu-001", Role.RELAY, (), None)
    to_role = (pack(control.Apply(desired)), pack(control.Certificates()), pack(control.Stop()))
    from_role = (pack(control.Ready(("127.0.0.1:1",))), pack(control.Status(Load(), True)))
    return [
        Decoder("control, to a role", lambda data: _union(control.ToRole, data), to_role),
        Decoder("control, from a role", lambda data: _union(control.FromRole, data), from_role),
    ]


def _union(kind: Any, data: bytes) -> object:
    return unpack(kind, data, bytes_max=BODY_BYTES_MAX)


def _rest(covered: set[str]) -> list[Decoder]:
    """Every other message of `wire`, as MessagePack and from a sample of its types."""
    rest = [kind for kind in messages_of() if kind.__name__ not in covered]
    return [
        Decoder(
            f"message {kind.__name__}",
            partial(_union, kind),
            (pack(sample(kind)),),
            ("wire.codec.unpack",),
        )
        for kind in rest
    ]


@cache
def decoders() -> tuple[Decoder, ...]:
    """All of them, by name."""
    found = [*_framed(), *_json(), *_signed(), *_blobs(), *_lines(), *_log(), *_control()]
    found += [*decoders_stored.decoders(), *decoders_kept.decoders()]
    found += [*_rest({d.name.split()[-1] for d in found})]
    assert len({decoder.name for decoder in found}) == len(found)
    return tuple(sorted(found, key=lambda decoder: decoder.name))
