"""The vectors of persons, groups and friends (sections 7 and 10)."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from . import lines, sealing, wire

if TYPE_CHECKING:
    from .check_vectors import Checks

PAIR_CARD, DEVICE_STATEMENT = 20, 5


def rekeys(checks: Checks, vector: dict[str, Any]) -> None:
    """rekeys.json: a new era, opened by its reader and followed back."""
    get = {k: bytes.fromhex(v) for k, v in vector.items() if isinstance(v, str)}
    era = sealing.Era(get["secret"], get["network"], vector["number"])
    before = sealing.Era(get["before_secret"], get["network"], 0)
    checks.same(era.tag, get["tag"], "tag of the new era")
    checks.same(before.tag, get["before"], "tag of the era before")
    back = ChaCha20Poly1305(wire.derive("holdfast v1 era back", get["secret"]))
    checks.same(back.decrypt(bytes(12), get["back"], None), get["before_secret"], "the way back")
    number = vector["number"].to_bytes(4, "big")
    checks.same(b"holdfast v1 era" + get["group"] + number + era.tag, get["info"], "info")
    for context, secret, public in (
        ("holdfast v1 person wrap", "keyring_secret", "person_wrap_public"),
        ("holdfast v1 device wrap", "device_seed", "device_wrap_public"),
        ("holdfast v1 recovery wrap", "recovery_secret", "recovery_wrap_public"),
    ):
        checks.same(public_of(wire.derive(context, get[secret])), get[public], public)
    key = x_wing(wire.derive("holdfast v1 person wrap", get["keyring_secret"]))
    checks.same(
        SUITE.decrypt(get["sealed"], key, info=get["info"]), get["secret"], "the era's secret"
    )
    entries = msgpack.unpackb(get["entries"])["entries"]
    checks.same([entry[0] for entry in entries], [1, 2, 3, 4, 5], "kinds of member entry")
    checks.same(entries[0][4], 2, "level of a writer")
    checks.same(entries[3][3], get["person_wrap_public"], "a published wrap key")
    checks.same(entries[4][1:], [1, era.tag, before.tag, get["back"], []], "a rekey")


SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def x_wing(seed: bytes) -> MLKEM768X25519PrivateKey:
    """The X-Wing key that grows from 32 bytes."""
    spread = hashlib.shake_256(seed).digest(96)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(spread[:64]),
        X25519PrivateKey.from_private_bytes(spread[64:]),
    )


def public_of(key: bytes) -> bytes:
    """1,184 bytes of ML-KEM-768, then 32 of X25519."""
    spread = hashlib.shake_256(key).digest(96)
    lattice = MLKEM768PrivateKey.from_seed_bytes(spread[:64]).public_key()
    curve = X25519PrivateKey.from_private_bytes(spread[64:]).public_key()
    return lattice.public_bytes_raw() + curve.public_bytes_raw()


def pairings(checks: Checks, vector: dict[str, Any]) -> None:
    """pairings.json: proofs, cards and words of two who meet."""
    get = {k: bytes.fromhex(v) for k, v in vector.items() if k not in ("spoken", "line", "shares")}
    key = get["key"]
    t = wire.H(wire.H(get["opening"]) + wire.H(get["pake"]))
    checks.same(t, get["transcript"], "transcript")
    prover = wire.derive("holdfast v1 pair proof", key)
    checks.same(wire.keyed(prover, b"\x01" + t), get["host_proof"], "the host's proof")
    checks.same(wire.keyed(prover, b"\x02" + t), get["guest_proof"], "the guest's proof")
    checks.same(wire.derive("holdfast v1 pair card", key), get["card_key"], "key of cards")
    hashes = wire.H(get["card"]) + wire.H(get["other_card"])
    long = wire.derive("holdfast v1 pair words", key + hashes)
    checks.same(long[:7], get["words"], "words of a pairing")
    checks.same(len(vector["spoken"].split()), 5, "five words")
    shares = b"".join(bytes.fromhex(share) for share in vector["shares"])
    checks.same(wire.derive("holdfast v1 pairing secret", shares), get["secret"], "pairing secret")
    body, signer, signature = msgpack.unpackb(get["card"])
    Ed25519PublicKey.from_public_bytes(signer).verify(
        signature, b"holdfast v1 pair card\x00" + body
    )
    checks.same(body[0], PAIR_CARD, "type of a card")
    card = msgpack.unpackb(body[1:])
    inner, root, vouched = card["statement"]
    Ed25519PublicKey.from_public_bytes(root).verify(
        vouched, b"holdfast v1 device statement\x00" + inner
    )
    checks.same(inner[0], DEVICE_STATEMENT, "type of a statement")
    checks.same(msgpack.unpackb(inner[1:])["device"], signer, "the device that signs")
    checks.same(card["transcript"], t, "transcript in the card")
    data = b"\x01" + get["fields"]
    checks.same(lines.decode("hfpair", vector["line"]), data, "data of a pairing line")
    meeting = msgpack.unpackb(get["fields"])[0]
    mailbox = wire.derive("holdfast v1 pair mailbox", meeting)
    checks.same(mailbox, get["mailbox_secret"], "mailbox of a pairing")
    friend, gone = msgpack.unpackb(get["friends"])["entries"]
    checks.same((friend[0], friend[1], friend[4]), (1, root, get["secret"]), "a friend")
    checks.same((friend[6][0][0], friend[8]), (signer, vector["spoken"]), "a friend's device")
    checks.same(gone[0], 2, "no friend any more")


def carrying(checks: Checks, vector: dict[str, Any]) -> None:
    """carrying.json: what lies at rest, letters, shares, a locked key."""
    text = ("where", "access", "shares", "passphrase")
    get = {k: bytes.fromhex(v) for k, v in vector.items() if k not in text}
    own = wire.derive("holdfast v1 at rest own half", get["device_seed"])
    where = vector["where"].encode()
    for half, kept in ((get["half"], "kept"), (b"", "kept_alone")):
        key = wire.derive("holdfast v1 at rest", own + half)
        name = wire.derive("holdfast v1 at rest nonce", key)
        nonce = wire.keyed(name, where + b"\x00" + get["data"])[:12]
        sealed = nonce + ChaCha20Poly1305(key).encrypt(nonce, get["data"], where)
        checks.same(sealed, get[kept], kept)
    (body, signer, signature), sealed = msgpack.unpackb(get["letter"])
    Ed25519PublicKey.from_public_bytes(signer).verify(signature, b"holdfast v1 letter\x00" + body)
    told = msgpack.unpackb(body[1:])
    checks.same((told["to"], told["digest"]), (get["to"], wire.H(sealed)), "body of a letter")
    checks.same(b"holdfast v1 letter" + get["to"], get["info"], "info of a letter")
    checks.same(b"holdfast v1 letter answer" + wire.H(body), get["answer_info"], "its answer's")
    public, proof = (bytes.fromhex(part) for part in vector["access"])
    proven = b"holdfast v1 letter access\x00" + wire.H(get["reply_key"]) + get["to"]
    Ed25519PublicKey.from_public_bytes(public).verify(proof, proven)
    checks.same(b"holdfast v1 half" + get["person"] + signer, get["half_info"], "info of a half")
    one, two = (bytes.fromhex(vector["shares"][x]) for x in "12")
    joined = bytes(_times(a, 0xF7) ^ _times(b, 0xF6) for a, b in zip(one, two, strict=True))
    checks.same(joined, get["joined"], "two shares")
    head, rest = get["locked"][:56], get["locked"][56:]
    checks.same(head[:16], b"holdfast lock 1\n", "magic of a locked key")
    memory, passes, lanes = (int.from_bytes(head[i : i + 4], "big") for i in (16, 20, 24))
    kdf = Argon2id(salt=head[28:44], length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    key = kdf.derive(vector["passphrase"].encode())
    opened = ChaCha20Poly1305(key).decrypt(head[44:], rest, head)
    checks.same(opened, get["device_seed"], "a locked key")


def _times(a: int, b: int) -> int:
    """Product in GF(256), polynomial 0x11b."""
    total = 0
    while b:
        total ^= a if b & 1 else 0
        a, b = a << 1 ^ (0x11B if a & 0x80 else 0), b >> 1
    return total
