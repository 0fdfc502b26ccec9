"""One server of the pool, over TLS 1.3 and HTTP/1.1 (sections 3 and 5)."""

from __future__ import annotations

import hashlib
import http.client
import json
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from . import merkle
from .certificates import check_chain, check_record, uri
from .sealing import Era
from .wire import (
    CONTENT_TYPE,
    ERROR,
    RECEIPT_BATCH,
    REPLIES,
    REQUESTS,
    SESSION,
    H,
    WireError,
    base32,
    decode_frame,
    encode_frame,
    sign,
    split,
    unbase32,
    verify,
)

WAITS = ("rate", "busy")


class Refused(Exception):
    """A reply with a 4xx or 5xx status."""

    def __init__(self, status: int, code: str, message: str, retry_after_s: float) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.retry_after_s = status, code, retry_after_s


@dataclass(frozen=True)
class Server:
    """Where a server is and who it must be."""

    address: str
    roots: tuple[x509.Certificate, ...]
    network: bytes
    node: str
    role: str


def presented(sock: ssl.SSLSocket) -> list[bytes]:
    """The certificates the other side sent, DER, leaf first."""
    if hasattr(sock, "get_unverified_chain"):  # public since Python 3.13
        return list(sock.get_unverified_chain())
    chain = sock._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]


def tls13() -> ssl.SSLContext:
    """TLS 1.3, and no opinion on certificates: `check_chain` has one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Connection(http.client.HTTPSConnection):
    """HTTPS to one server; `check_chain` decides about it before a byte of HTTP is sent."""

    def __init__(self, server: Server, context: ssl.SSLContext | None = None) -> None:
        host, _, port = server.address.rpartition(":")
        context = context or tls13()
        super().__init__(host.strip("[]"), int(port), context=context, timeout=30.0)
        self.server = server
        self.leaf = b""

    def connect(self) -> None:
        """Shake hands, and hang up on anybody but the server we want."""
        super().connect()
        chain = presented(self.sock)
        try:
            wanted = uri(self.server.network, self.server.role, self.server.node)
            check_chain(chain, self.server.roots, wanted)
        except Exception:
            self.close()
            raise
        self.leaf = hashlib.sha256(chain[0]).digest()

    def exchange(self, verb: str, frame: bytes) -> tuple[dict[str, Any], bytes]:
        """Send the bytes of a request as they are; the reply's header and attachments."""
        try:
            self.request("POST", f"/v1/{verb}", frame, {"Content-Type": CONTENT_TYPE})
            response = self.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            self.close()  # the next request makes a new connection
            raise
        if response.headers.get_content_type() != CONTENT_TYPE:
            raise WireError(f"status {response.status}, and not a frame")
        if response.status >= 400:
            raise Refused(response.status, **decode_frame(ERROR, body)[0])
        return decode_frame(REPLIES[verb], body)

    def call(
        self, verb: str, attachments: Sequence[bytes] = (), **header: Any
    ) -> tuple[dict[str, Any], bytes]:
        """One verb; waits a few times when the server says so."""
        frame = encode_frame(REQUESTS[verb], header, attachments)
        for _ in range(4):
            try:
                return self.exchange(verb, frame)
            except Refused as refused:
                if refused.code not in WAITS:
                    raise
                time.sleep(refused.retry_after_s)
        return self.exchange(verb, frame)

    def health(self) -> dict[str, Any]:
        """The public JSON."""
        self.request("GET", "/health")
        return json.loads(self.getresponse().read())

    def hello(self) -> dict[str, Any]:
        """Learn the challenge, from the node we came for."""
        reply, _ = self.call("hello", versions=[1])
        if reply["version"] != 1 or base32(H(reply["identity"])) != self.server.node:
            raise WireError("the server speaks for another node or in another version")
        return reply


@dataclass(frozen=True)
class Receipt:
    """Proof, verified, that a blob is durable on a server."""

    blob: bytes
    sequence: int
    duplicate: bool


def check_receipts(
    reply: dict[str, Any], blobs: Sequence[bytes], node: str, incarnation: bytes, tag: bytes
) -> list[Receipt]:
    """The receipts of a push, each proven to be in a batch signed by the node."""
    batch = verify(RECEIPT_BATCH, reply["batch"])
    if base32(H(reply["batch"][1])) != node or base32(batch["node"]) != node:
        raise WireError("another node signed the receipts")
    if batch["incarnation"] != incarnation or len(reply["receipts"]) != len(blobs):
        raise WireError("the receipts are not for this push")
    for blob, receipt in zip(blobs, reply["receipts"], strict=True):
        born = int.from_bytes(blob[2:6], "big")
        data = merkle.leaf_data(H(blob), tag, receipt["sequence"], len(blob), born)
        proof = (receipt["index"], batch["size"], receipt["path"], batch["root"])
        if receipt["blob"] != H(blob) or not merkle.proves(merkle.leaf_hash(data), *proof):
            raise WireError("a receipt does not prove its blob")
    return [Receipt(r["blob"], r["sequence"], r["duplicate"]) for r in reply["receipts"]]


class Session:
    """What a group does on one server."""

    def __init__(self, connection: Connection, era: Era, slot: bytes) -> None:
        self.connection, self.era, self.slot = connection, era, slot
        hello = connection.hello()
        self.proof = self.prove(hello["challenge"])
        reply, _ = connection.call(
            "open",
            proof=self.proof,
            peer=False,
            record=None,
            revocations=None,
            witnesses=None,
            ticket=b"",
        )
        self.token: bytes = reply["session"]
        self.incarnation: bytes = reply["incarnation"]
        self.head: int = reply["head"]
        server = connection.server
        self.record = reply["record"] and check_record(
            reply["record"], server.roots, server.network, slot
        )

    def prove(self, challenge: bytes, **changed: bytes) -> list[bytes]:
        """A SessionProof for this connection; `changed` makes a wrong one."""
        node = unbase32(self.connection.server.node)
        fields = {"challenge": challenge, "node": node, "leaf": self.connection.leaf}
        return sign(self.era.access, SESSION, {**fields, "slot": self.slot, **changed})

    def push(self, blobs: Sequence[bytes], blob_class: int) -> list[Receipt]:
        """Store blobs of one class; returns when they are durable and the receipts hold."""
        sizes = [len(blob) for blob in blobs]
        reply, _ = self.connection.call(
            "push", blobs, session=self.token, blob_class=blob_class, sizes=sizes, tag=b""
        )
        node = self.connection.server.node
        return check_receipts(reply, blobs, node, self.incarnation, self.era.tag)

    def pull(
        self, after: int = 0, items_max: int = 100, blob_class: int | None = None
    ) -> list[tuple[dict[str, Any], bytes]]:
        """Everything after a sequence, page by page: items and their blobs, ids checked."""
        found: list[tuple[dict[str, Any], bytes]] = []
        more = True
        while more:
            reply, attachments = self.connection.call(
                "pull",
                session=self.token,
                incarnation=self.incarnation,
                after=after,
                items_max=items_max,
                blob_class=blob_class,
            )
            items, more = reply["items"], reply["more"]
            inline = [item for item in items if item["inline"]]
            bodies = split(attachments, [item["size"] for item in inline])
            blobs = {item["blob"]: body for item, body in zip(inline, bodies, strict=True)}
            blobs |= self.get([item["blob"] for item in items if not item["inline"]])
            for item in items:
                blob = blobs[item["blob"]]
                if item["sequence"] <= after or H(blob) != item["blob"]:
                    raise WireError("an item is out of order or not what it is called")
                after = item["sequence"]
                found.append((item, blob))
        return found

    def get(self, ids: Sequence[bytes]) -> dict[bytes, bytes]:
        """Blobs by id; what the server does not have is left out."""
        found: dict[bytes, bytes] = {}
        rest = list(ids)
        while rest:
            reply, attachments = self.connection.call(
                "get", session=self.token, blobs=rest, offset=0, length=0, tag=b""
            )
            answered, rest = rest[: len(reply["sizes"])], rest[len(reply["sizes"]) :]
            here = [name for name, n in zip(answered, reply["sizes"], strict=True) if n >= 0]
            bodies = split(attachments, [n for n in reply["sizes"] if n >= 0])
            if not answered or any(H(b) != n for n, b in zip(here, bodies, strict=True)):
                raise WireError("not the blobs that were asked for")
            found |= zip(here, bodies, strict=True)
        return found

    def get_range(self, blob: bytes, offset: int, length: int) -> bytes:
        """A part of one blob; no hash covers it."""
        _, attachments = self.connection.call(
            "get", session=self.token, blobs=[blob], offset=offset, length=length, tag=b""
        )
        return attachments

    def have(self, ids: Sequence[bytes]) -> list[bool]:
        """Which of these are durable here."""
        reply, _ = self.connection.call("have", session=self.token, blobs=list(ids))
        if len(reply["present"]) != len(ids):
            raise WireError("not one answer per id")
        return [bool(byte) for byte in reply["present"]]

    def list(self, born_from: int, items_max: int = 100) -> list[tuple[int, dict[str, Any]]]:
        """(born day, item) of everything born on that day or later, by born day and id."""
        found: list[tuple[int, dict[str, Any]]] = []
        after, more = None, True
        while more:
            reply, _ = self.connection.call(
                "list", session=self.token, born_from=born_from, items_max=items_max, after=after
            )
            found += zip(reply["born"], reply["items"], strict=True)
            more = reply["more"]
            if found:
                after = (found[-1][0], found[-1][1]["blob"])
        return found

    def watch(self, after: int, wait_s: float) -> int:
        """The head of the log once it is past `after`, or when the wait ends."""
        reply, _ = self.connection.call(
            "watch", sessions=[self.token], after=[after], wait_s=wait_s
        )
        return reply["heads"][0]
