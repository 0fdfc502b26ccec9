"""Decoders of what a home keeps (keys, cards, sealed files, member.json, rows) and of answers."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import msgspec

from holdfast.crypto import sealedfile
from holdfast.crypto.blindrsa import BlindSigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.sealedcall import (
    key_id,
    open_answer,
    open_request,
    padded,
    seal_answer,
    seal_request,
    unpadded,
)
from holdfast.crypto.tlskey import TlsKey
from holdfast.crypto.wrap import WrapKey
from holdfast.device.folder import chunk
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq import brain_rows, snapshot
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.logic.access.hello import read_hello
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import ServerRow
from holdfast.logic.group.changeset import Piece
from holdfast.logic.group.folder import CODEC_ZSTD
from holdfast.node.home import Member, parse_member
from holdfast.rim.blindkeys import new_blind_key
from holdfast.rim.control.store import KeyValue
from holdfast.rim.front_client import Where, parse_where
from holdfast.rim.pool_client import _Connection
from holdfast.sim.decoder import Decoder, some
from holdfast.sim.samples import sample
from holdfast.wire.bech32 import encode_line
from holdfast.wire.codec import pack
from holdfast.wire.pairing import KEY_BYTES, Meeting, parse_meeting
from holdfast.wire.peers import Call, Return, parse_frame
from holdfast.wire.snapshot import KEY_PREFIX, SNAPSHOT_VERSION, Snapshot, parse_key_line

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NOW: Final = 1_795_000_000.0
_USAGE: Final = (PeerFault, UsageError)


def decoders() -> tuple[Decoder, ...]:
    """All of them."""
    return (*_keys(), *_sealed(), *_rows(), *_answers(), *_fronts())


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _keys() -> list[Decoder]:
    words = " ".join(Phrase.from_entropy(bytes(32)).words())
    meeting = Meeting(bytes(KEY_BYTES), ("192.0.2.1:7443",), None, int(NOW) + 600)
    return [
        Decoder(
            "TLS key, PEM",
            TlsKey.from_pem,
            (TlsKey.from_bytes(b"t" * 32).pem(),),
            ("crypto.tlskey.TlsKey.from_pem",),
            _USAGE,
        ),
        Decoder(
            "ticket key, PEM",
            BlindSigningKey.from_pem,
            (new_blind_key().pem(),),
            ("crypto.blindrsa.BlindSigningKey.from_pem",),
            _USAGE,
        ),
        Decoder(
            "seed phrase",
            lambda data: Phrase.parse(_text(data)),
            (words.encode(),),
            ("crypto.phrase.Phrase.parse",),
            _USAGE,
        ),
        Decoder(
            "snapshot key line",
            lambda data: parse_key_line(_text(data)),
            (encode_line(KEY_PREFIX, bytes(32)).encode(),),
            ("wire.snapshot.parse_key_line",),
        ),
        Decoder(
            "frame of paired devices",
            parse_frame,
            (pack(Call(1, bytes(32), (bytes(32),), "have", b"x")), pack(Return(1, "", b"x"))),
            ("wire.peers.parse_frame",),
        ),
        Decoder(
            "pairing line",
            lambda data: parse_meeting(_text(data), NOW),
            (str(meeting).encode(),),
            ("wire.pairing.parse_meeting",),
        ),
    ]


def _fronts() -> list[Decoder]:
    """What a headquarters opens for callers, and a caller from a node (ADR 0044)."""
    key = WrapKey(b"f" * 32)
    keys = {key_id(key.public): key}
    request = seal_request(b"call", [key.public], b"c" * 32, (64,))
    answer = seal_answer(b"said", b"r" * 32, b"s" * 32, (64,))
    inside = padded(b"call", (64,))
    where = Where(("192.0.2.1:443", "[2001:db8::1]:443"), bytes(32))
    return [
        Decoder(
            "sealed call",
            lambda data: open_request(data, keys),
            (request,),
            ("crypto.sealedcall.open_request",),
        ),
        Decoder(
            "sealed answer",
            lambda data: open_answer(data, b"r" * 32),
            (answer,),
            ("crypto.sealedcall.open_answer",),
        ),
        Decoder("padded call", unpadded, (inside,), ("crypto.sealedcall.unpadded",)),
        Decoder(
            "line of fronts",
            lambda data: parse_where(_text(data)),
            (str(where).encode(),),
            ("rim.front_client.parse_where",),
            _USAGE,
        ),
    ]


def _sealed() -> list[Decoder]:
    identity = sealedfile.make_identity()
    kept = sample(Snapshot)
    kept = msgspec.structs.replace(kept, version=SNAPSHOT_VERSION)
    sealed = snapshot.seal(kept, (sealedfile.recipient_of(identity),))
    inside = sealedfile.open_for(sealed, identity, bytes_max=SNAPSHOT_BYTES_MAX)
    return [
        Decoder(
            "sealed file",
            lambda data: sealedfile.unseal_with(data, identity),
            (sealedfile.seal_to(b"a secret", identity),),
            ("crypto.sealedfile.unseal_with",),
            _USAGE,
        ),
        Decoder(
            "key file",
            lambda data: sealedfile.recipient_of(_text(data)),
            (f"# a comment\n{identity}\n".encode(),),
            (),
            _USAGE,
        ),
        Decoder(
            "sealed snapshot",
            lambda data: snapshot.unseal(data, identity),
            (sealed,),
            ("hq.snapshot.unseal",),
            _USAGE,
        ),
        Decoder(
            "snapshot, opened",
            lambda data: snapshot.parse_body(data),
            (inside,),
            ("hq.snapshot.parse_body",),
            _USAGE,
        ),
    ]


def _rows() -> list[Decoder]:
    member = Member(
        bytes(16), bytes(32), "n", Role.RELAY, "eu", "p", "o", ("h:1",), "127.0.0.1:1", 30.0
    )
    row = msgspec.msgpack.encode(sample(ServerRow))
    body = b"hello" * 40
    squeezed = zstd.compress(body)
    plain = Piece(bytes(32), 0, len(body), len(body), 0, hash_bytes(body))
    packed = msgspec.structs.replace(plain, stored=len(squeezed), codec=CODEC_ZSTD)
    return [
        Decoder(
            "member.json",
            parse_member,
            (msgspec.json.encode(member),),
            ("node.home.parse_member",),
            (OperationFault,),
        ),
        Decoder(
            "row of the control store",
            lambda data: brain_rows.decode(KeyValue("k", data, 1, 1, 1), ServerRow),
            (row,),
            ("hq.brain_rows.decode",),
            (OperationFault,),
        ),
        Decoder(
            "chunk of a pack",
            lambda data: chunk.decode(plain, data),
            (body,),
            ("device.folder.chunk.decode",),
        ),
        Decoder(
            "chunk of a pack, compressed",
            lambda data: chunk.decode(packed, data),
            (squeezed,),
            ("device.folder.chunk.decode",),
        ),
    ]


class _Nowhere:
    """A transport that goes nowhere."""

    def abort(self) -> None:
        return


def _client_hello() -> bytes:
    """A small one: a cipher suite, a server name, a group."""
    name = b"example.net"
    listed = b"\0" + len(name).to_bytes(2, "big") + name
    named = len(listed).to_bytes(2, "big") + listed
    extensions = b"".join(
        kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
        for kind, body in ((0, named), (10, b"\0\x02\0\x1d"))
    )
    body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello


def _answers() -> list[Decoder]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: x\r\ncontent-length: 5\r\n\r\nhello"

    def answered(data: bytes) -> object:
        connection: Any = _Connection()
        connection._transport = _Nowhere()
        loop = asyncio.new_event_loop()
        try:
            waiter = connection._waiter = loop.create_future()
            connection.data_received(data)
            if not waiter.done():
                raise PeerFault("half an answer")
            return waiter.result()
        finally:
            loop.close()

    return [
        Decoder(
            "ClientHello",
            lambda data: some(read_hello(data)),
            (_client_hello(),),
            ("logic.access.hello.read_hello",),
        ),
        Decoder(
            "HTTP answer of a server",
            answered,
            (head,),
            ("rim.pool_client._Connection._parse_head",),
        ),
    ]
