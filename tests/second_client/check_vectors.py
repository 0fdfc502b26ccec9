"""Recomputes every byte vector, in both directions: `python -m second_client.check_vectors DIR`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import evidence, meeting_vectors, merkle, more_vectors, people_vectors, wire
from .sealing import Era, Opened, SealError


class Checks:
    """Compares, counts, and stops at the first difference."""

    def __init__(self) -> None:
        self.made = 0

    def same(self, found: object, expected: object, what: str) -> None:
        """One comparison."""
        if found != expected:
            raise SystemExit(f"{what}: {found!r} is not {expected!r}")
        self.made += 1

    def refuses(self, what: str, act: Callable[[], object]) -> None:
        """One thing that must not be accepted."""
        try:
            act()
        except (wire.WireError, SealError):
            self.made += 1
        else:
            raise SystemExit(f"{what}: accepted")


def flipped(data: bytes, at: int) -> bytes:
    """The data with one bit changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def hashes(checks: Checks, vector: dict[str, Any]) -> None:
    """hashes.json."""
    name = vector["name"]
    if name == "node id":
        node = wire.H(bytes.fromhex(vector["identity"]))
        checks.same(node.hex(), vector["output"], name)
        checks.same(wire.base32(node), vector["text"], f"{name} as text")
        checks.same(wire.unbase32(vector["text"]), node, f"{name} from text")
        return
    data = bytes.fromhex(vector["input"])
    found = {
        "H": lambda: wire.H(data),
        "H keyed": lambda: wire.keyed(bytes.fromhex(vector["key"]), data),
        "derive": lambda: wire.derive(vector["context"], data),
    }[name]()
    checks.same(found.hex(), vector["output"], name)


def eras(checks: Checks, vector: dict[str, Any]) -> None:
    """eras.json."""
    era = Era(bytes.fromhex(vector["secret"]), bytes.fromhex(vector["network"]), vector["number"])
    found = {
        "content_key": era.content_key,
        "salt_key": era.salt_key,
        "access_seed": era.access_seed,
        "access_public": wire.public(era.access),
        "tag": era.tag,
    }
    for name, value in found.items():
        checks.same(value.hex(), vector[name], f"era {vector['number']}: {name}")


def blobs(checks: Checks, vector: dict[str, Any]) -> None:
    """blobs.json."""
    name = vector["name"]
    secret, network, number = vector["era_secret"], vector["network"], vector["era_number"]
    era = Era(bytes.fromhex(secret), bytes.fromhex(network), number)
    payload, blob = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["blob"])
    kind, index, total, born = (vector[key] for key in ("class", "index", "total", "born"))
    checks.same(era.seal(payload, kind, born, index, total).hex(), vector["blob"], f"seal {name}")
    checks.same(wire.H(blob).hex(), vector["id"], f"id of {name}")
    checks.same(era.open(blob, kind), Opened(kind, index, total, born, payload), f"open {name}")
    checks.refuses(f"{name} as another class", lambda: era.open(blob, 3 - kind))
    for at in (0, 1, 5, 6, 37, 38, -1):
        checks.refuses(f"{name} changed at {at}", lambda at=at: era.open(flipped(blob, at), kind))
    other = Era(bytes.fromhex(secret), bytes.fromhex(network), number ^ 1)
    checks.refuses(f"{name} in another era", lambda: other.open(blob, kind))


def frames(checks: Checks, vector: dict[str, Any]) -> None:
    """frames.json."""
    name, frame = vector["name"], bytes.fromhex(vector["frame"])
    shape = wire.ERROR if name == "error reply" else wire.REQUESTS[name]
    header, rest = wire.decode_frame(shape, frame)
    bodies = wire.split(rest, header.get("sizes", []))
    checks.same([body.hex() for body in bodies], vector["attachments"], f"attachments of {name}")
    again = wire.encode_frame(shape, dict(sorted(header.items())), bodies)
    checks.same(again.hex(), vector["frame"], f"frame {name}")
    checks.refuses(f"{name} cut short", lambda: wire.decode_frame(shape, frame[: 4 + 3]))
    stretched = (int.from_bytes(frame[:4], "big") + 1).to_bytes(4, "big") + frame[4:] + b"\x00"
    checks.refuses(f"{name} with more", lambda: wire.decode_frame(shape, stretched))
    checks.refuses(f"{name} with a field", lambda: wire.pack(shape, {**header, "x": 1}))
    for field in header:
        less = {key: value for key, value in header.items() if key != field}
        checks.refuses(f"{name} without {field}", lambda less=less: wire.pack(shape, less))


def signed(checks: Checks, vector: dict[str, Any]) -> None:
    """signed.json."""
    kind, name, body = vector["type"], vector["context"], bytes.fromhex(vector["body"])
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vector["seed"]))
    checks.same(wire.BODIES[kind][0], name, f"context of type {kind}")
    checks.same(wire.public(key).hex(), vector["signer"], f"signer of {name}")
    checks.same(wire.signing_input(kind, body).hex(), vector["signing_input"], f"input of {name}")
    received = wire.unpack(wire.SIGNED, bytes.fromhex(vector["signed"]))
    checks.same([part.hex() for part in received], [vector[k] for k in PARTS], f"parts of {name}")
    again = wire.sign(key, kind, wire.verify(kind, received))
    checks.same(wire.pack(wire.SIGNED, again).hex(), vector["signed"], f"signed {name}")
    for part in range(3):
        forged = [flipped(value, 9) if i == part else value for i, value in enumerate(received)]
        checks.refuses(f"{name}, {PARTS[part]} changed", lambda f=forged: wire.verify(kind, f))
    other = next(other for other in wire.BODIES if other != kind)
    checks.refuses(f"{name} as type {other}", lambda: wire.verify(other, received))


def trees(checks: Checks) -> None:
    """Trees of more sizes than the vectors have, built the recursive way."""
    for size in range(1, 18):
        leaves = [merkle.leaf_hash(bytes([n])) for n in range(size)]
        top = merkle.root(leaves)
        for index, leaf in enumerate(leaves):
            path = merkle.path(leaves, index)
            checks.same(merkle.proves(leaf, index, size, path, top), True, "a path")
            wrong = [(leaf, index + 1, path), (leaf, index, [*path, top]), (top[::-1], index, path)]
            for one, at, siblings in wrong:
                checks.same(merkle.proves(one, at, size, siblings, top), False, "a wrong path")


PARTS = ("body", "signer", "signature")
FILES: dict[str, Callable[[Checks, dict[str, Any]], None]] = {
    "hashes": hashes,
    "eras": eras,
    "blobs": blobs,
    "frames": frames,
    "signed": signed,
    "receipts": more_vectors.receipts,
    "reconcile": more_vectors.reconcile,
    "lines": more_vectors.copied_lines,
    "log": more_vectors.transparency,
    "tickets": more_vectors.blind_tickets,
    "operations": more_vectors.operations,
    "rekeys": people_vectors.rekeys,
    "pairings": people_vectors.pairings,
    "windows": meeting_vectors.windows,
    "evidence": evidence.vectors,
    "carrying": people_vectors.carrying,
}


def main(directory: Path) -> None:
    """Check every file there is; a file this client does not know is a failure."""
    checks, counts = Checks(), {}
    for file in sorted(directory.glob("*.json")):
        vectors = json.loads(file.read_bytes())
        for vector in vectors:
            FILES[file.stem](checks, vector)
        counts[file.stem] = len(vectors)
    trees(checks)
    print(json.dumps({"vectors": counts, "checks": checks.made}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
