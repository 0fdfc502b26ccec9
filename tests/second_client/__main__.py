"""Drives a real server: `python -m second_client CONFIG.json push|pull|errors`.

CONFIG has `address`, `node` (text) and `role` of a server and, in `other`, of another one of the
slot; `root` (path of a PEM); `network`, `slot` and `era_secret` in hex; and `era_number`. Prints
one line of JSON; a difference ends it with a traceback.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from .certificates import Distrust
from .client import Connection, Refused, Server, Session, check_receipts
from .sealing import BULK, LOG, OVERHEAD, SIZES, Era, SealError
from .wire import REQUESTS, H, WireError, encode_frame

LOG_SIZES = (0, 15, 1024 - OVERHEAD, 1024 - OVERHEAD + 1, 16_000)
BULK_SIZES = (3_000, 60_000, 200_000, SIZES[-1] - OVERHEAD)
TODAY = int(time.time()) // 86_400


def payloads(blob_class: int) -> list[bytes]:
    """What is pushed, the same in every run: a run that pulls needs nothing from the one before."""
    sizes = LOG_SIZES if blob_class == LOG else BULK_SIZES
    return [blake3(b"payload %d" % size).digest(length=size) for size in sizes]


def sealed(era: Era, blob_class: int) -> list[bytes]:
    """The same as blobs of one object."""
    parts = payloads(blob_class)
    return [era.seal(part, blob_class, TODAY, i, len(parts)) for i, part in enumerate(parts)]


class Client:
    """A server, a group, and what was found out."""

    def __init__(self, config: dict[str, Any]) -> None:
        roots = tuple(x509.load_pem_x509_certificates(Path(config["root"]).read_bytes()))
        network, self.slot = bytes.fromhex(config["network"]), bytes.fromhex(config["slot"])
        self.era = Era(bytes.fromhex(config["era_secret"]), network, config["era_number"])
        self.server = Server(config["address"], roots, network, config["node"], config["role"])
        self.other = replace(self.server, **config["other"])
        self.session = Session(Connection(self.server), self.era, self.slot)
        self.held: list[str] = []

    # --- What works ------------------------------------------------------------------------------
    def push(self) -> dict[str, Any]:
        """Push everything twice, with a watcher on a second connection."""
        receipts, again, session = [], [], self.session
        elsewhere = Session(Connection(self.server), self.era, self.slot)
        with ThreadPoolExecutor() as pool:
            head = pool.submit(elsewhere.watch, session.head, 20.0)
            for blob_class in (LOG, BULK):
                receipts += session.push(sealed(self.era, blob_class), blob_class)
                again += session.push(sealed(self.era, blob_class), blob_class)
        assert head.result() > session.head
        assert [r.sequence for r in again] == [r.sequence for r in receipts]
        assert all(r.duplicate for r in again)
        record = session.record
        return {
            "pushed": sum(not r.duplicate for r in receipts),
            "receipts": len(receipts) + len(again),
            "sequences": [r.sequence for r in receipts],
            "status": session.connection.health()["status"],
            "record": [seat["name"] for seat in record["relays"] + record["replicas"]],
        }

    def pull(self) -> dict[str, Any]:
        """Read everything back, in every way there is."""
        session, opened = self.session, 0
        pulled = session.pull(items_max=4)
        for blob_class in (LOG, BULK):
            expected, mine = payloads(blob_class), session.pull(blob_class=blob_class)
            assert all(item["blob_class"] == blob_class for item, _ in mine)
            parts = {self.era.open(blob, blob_class) for _, blob in mine}
            assert {part.index: part.payload for part in parts} == dict(enumerate(expected))
            assert {part.total for part in parts} == {len(expected)}
            opened += len(parts)
        ids = [item["blob"] for item, _ in pulled]
        assert session.get(ids) == {item["blob"]: blob for item, blob in pulled}
        assert session.get([bytes(32), *ids]).keys() == set(ids)
        assert session.have([*ids, bytes(32)]) == [True] * len(ids) + [False]
        listed = [(born, item["blob"]) for born, item in session.list(0, items_max=4)]
        days = {int.from_bytes(blob[2:6], "big") for _, blob in pulled}
        assert listed == sorted(listed)
        assert {name for _, name in listed} == set(ids)
        assert {born for born, _ in listed} == days
        assert session.list(max(days) + 1) == []
        name, blob = max(((item["blob"], blob) for item, blob in pulled), key=lambda x: len(x[1]))
        assert session.get_range(name, 100_000, 7) == blob[100_000:100_007]
        assert session.get_range(name, 100_000, 0) == blob[100_000:]
        last = pulled[-1][0]["sequence"]
        assert session.watch(last, 0.2) == last
        bodies = sum(len(blob) for _, blob in pulled)
        return {"pulled": len(pulled), "opened": opened, "listed": len(listed), "bytes": bodies}

    # --- What must not work ----------------------------------------------------------------------
    def fails(
        self, reason: str, what: str, act: Callable[..., object], *args: Any, **kw: Any
    ) -> None:
        """This has to fail for this reason: a server's status and code, or an exception here."""
        try:
            act(*args, **kw)
        except Refused as error:
            found = f"{error.status} {error.code}"
        except (Distrust, SealError, WireError, ssl.SSLError) as error:
            found = type(error).__name__
        else:
            found = "nothing"
        if found != reason:
            raise AssertionError(f"{what}: {found} instead of {reason}")
        self.held.append(what)

    def errors(self) -> dict[str, Any]:
        """Everything that has to fail, on both sides."""
        self.certificates()
        self.proofs()
        self.requests()
        self.blobs()
        self.receipts()
        return {"held": self.held}

    def certificates(self) -> None:
        """Servers that are not the one this client came for."""
        server, impostor = self.server, forged_root(self.server.roots[0])
        for what, wrong in {
            "no pinned root": replace(server, roots=()),
            "a root of the same name": replace(server, roots=(impostor,)),
            "another network": replace(server, network=bytes(16)),
            "another node": replace(server, node="a" * 52),
            "another role": replace(server, role="hq"),
        }.items():
            self.fails("Distrust", what, Connection(wrong).hello)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.fails("SSLError", "TLS 1.2", Connection(server, context).hello)

    def proofs(self) -> None:
        """Sessions that nobody should get."""
        session, connection = self.session, self.session.connection
        challenge = connection.hello()["challenge"]
        proof = session.prove(challenge)

        def attempt(proof: list[bytes], at: Connection = connection, peer: bool = False) -> None:
            at.call(
                "open",
                proof=proof,
                peer=peer,
                record=None,
                revocations=None,
                witnesses=None,
                ticket=b"",
            )

        for what, wrong in {
            "a made-up challenge": session.prove(bytes(len(challenge))),
            "a proof for another leaf": session.prove(challenge, leaf=bytes(32)),
            "a proof for another node": session.prove(challenge, node=bytes(32)),
            "a signature of something else": [*proof[:2], session.proof[2]],
        }.items():
            self.fails("400 signature", what, attempt, wrong)
        self.fails("404 slot", "no such slot", attempt, session.prove(challenge, slot=bytes(16)))
        self.fails("403 forbidden", "a group as a peer", attempt, proof, peer=True)
        other = Session(Connection(self.other), self.era, self.slot)
        self.fails("400 signature", "a replayed proof", attempt, proof, other.connection)
        other.token = session.token
        self.fails("401 session", "another server's session", other.have, [bytes(32)])

    def requests(self) -> None:
        """Requests that are wrong in themselves."""
        connection, blob = self.session.connection, sealed(self.era, LOG)[0]

        def send(verb: str, *attachments: bytes, **changed: Any) -> None:
            header = {
                "reconcile": {},
                "push": {"blob_class": LOG, "sizes": [len(blob)], "tag": b""},
                "pull": {"after": 0, "items_max": 1, "blob_class": None},
                "get": {"blobs": [H(blob)], "offset": 0, "length": 0},
                "have": {"blobs": [H(blob)]},
            }[verb]
            connection.call(
                verb, attachments, **{"session": self.session.token, **header, **changed}
            )

        self.fails("401 session", "no such session", send, "have", session=bytes(16))
        self.fails("403 forbidden", "a push to another tag", send, "push", blob, tag=bytes(32))
        self.fails("403 forbidden", "a get from another tag", send, "get", tag=bytes(32))
        self.fails("403 forbidden", "a group that reconciles", send, "reconcile")
        self.fails("409 incarnation", "another incarnation", send, "pull", incarnation=bytes(16))
        self.fails("400 malformed", "sizes that do not add up", send, "push", blob, b"x")
        self.fails("404 verb", "no such verb", connection.exchange, "sing", HELLO)
        for what, frame in {
            "a frame cut short": HELLO[:-1],
            "trailing bytes": HELLO + b"x",
            "an unknown field": encode_frame(
                {"versions": [int], "x": int}, {"versions": [1], "x": 1}
            ),
        }.items():
            self.fails("400 malformed", what, connection.exchange, "hello", frame)
        self.fails("413 too-large", "a long header", connection.exchange, "hello", b"\xff" * 9)

    def blobs(self) -> None:
        """Blobs that somebody changed, and blobs that no server takes."""
        session, era = self.session, self.era
        blob = era.seal(os.urandom(16), LOG, TODAY)
        bad = blob[:-1] + bytes([blob[-1] ^ 1])
        session.push([bad], LOG)  # a server sees a blob like any other, of another id
        assert session.get([H(bad), H(blob)]) == {H(bad): bad}
        self.fails("SealError", "a tampered blob", era.open, bad, LOG)
        self.fails("SealError", "a blob of another class", era.open, blob, BULK)
        stranger = Era(os.urandom(32), era.network, era.number)
        self.fails("SealError", "a blob of another era", stranger.open, blob, LOG)
        theirs = Session(session.connection, stranger, self.slot)
        assert (theirs.get([H(bad)]), theirs.have([H(bad)]), theirs.pull()) == ({}, [False], [])
        large, late = blob.ljust(SIZES[-1] + 1, b"\x00"), era.seal(b"", LOG, TODAY + 1_000)
        self.fails("400 size", "a blob that is too large", session.push, [large], LOG)
        self.fails("400 born", "a blob from the future", session.push, [late], LOG)

    def receipts(self) -> None:
        """Receipts that somebody changed."""
        session, blobs = self.session, [self.era.seal(os.urandom(9), LOG, TODAY) for _ in range(2)]
        sizes = [len(blob) for blob in blobs]
        reply, _ = session.connection.call(
            "push", blobs, session=session.token, blob_class=LOG, sizes=sizes, tag=b""
        )
        proven = (blobs, self.server.node, session.incarnation, self.era.tag)
        assert len(check_receipts(reply, *proven)) == 2
        one, two = reply["receipts"]
        for what, changed in {
            "a forged batch": {"batch": [*reply["batch"][:2], bytes(64)]},
            "a forged sequence": {"receipts": [{**one, "sequence": 99}, two]},
            "a path cut short": {"receipts": [{**one, "path": []}, two]},
            "receipts swapped": {"receipts": [two, one]},
        }.items():
            self.fails("WireError", what, check_receipts, {**reply, **changed}, *proven)
        self.fails(
            "WireError", "another node's batch", check_receipts, reply, blobs, "a" * 52, *proven[2:]
        )


HELLO = encode_frame(REQUESTS["hello"], {"versions": [1]})


def forged_root(root: x509.Certificate) -> x509.Certificate:
    """A root that has everything of the true one but its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(root.subject, root.subject, key.public_key(), 1)
    builder = builder.not_valid_before(root.not_valid_before_utc)
    builder = builder.not_valid_after(root.not_valid_after_utc)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    return builder.sign(key, hashes.SHA256())


def main(config: str, mode: str) -> None:
    """One mode, one line."""
    client = Client(json.loads(Path(config).read_bytes()))
    act = {"push": client.push, "pull": client.pull, "errors": client.errors}[mode]
    print(json.dumps({"mode": mode, **act()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
