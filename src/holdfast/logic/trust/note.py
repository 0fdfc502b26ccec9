"""Signed notes as C2SP writes them: a text, an empty line, and signature lines under it.

    <text, ends in a newline>
    <empty line>
    — <name> <base64 of key id (4 bytes) | signature>

The key id is SHA-256(name | 0x0A | key kind | public key), its first four bytes: a hint for
choosing a key, never a proof. Kinds here: 0x01 an Ed25519 signature over the text; 0x04 a timed
cosignature of a witness, eight bytes of Unix seconds and then Ed25519 over

    cosignature/v1
    time <seconds>
    <the text>

Source: c2sp.org/signed-note, c2sp.org/tlog-cosignature. Input may be hostile: PeerFault.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Final

import msgspec

from holdfast.crypto.pure import sha256, verify_ed25519
from holdfast.errors import PeerFault
from holdfast.limits.trust import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX

ED25519: Final = 1
COSIGNATURE: Final = 4
_KEY_ID_BYTES: Final = 4
_TIME_BYTES: Final = 8
_SIGNATURE_BYTES: Final = 64
_DASH: Final = "— "


class Line(msgspec.Struct, frozen=True):
    """One signature line: who claims to have signed, and what follows the key id."""

    name: str
    key_id: bytes
    signature: bytes

    def __str__(self) -> str:
        data = binascii.b2a_base64(self.key_id + self.signature, newline=False).decode()
        return f"{_DASH}{self.name} {data}\n"


class Note(msgspec.Struct, frozen=True):
    """A text and its signature lines; nothing of it is verified."""

    text: str
    lines: tuple[Line, ...]

    def render(self) -> bytes:
        """The bytes that travel."""
        return "".join((self.text, "\n", *map(str, self.lines))).encode()

    def with_lines(self, lines: Iterable[Line]) -> Note:
        """The note with these lines added, each once."""
        return Note(self.text, tuple(dict.fromkeys((*self.lines, *lines))))


def parse_note(data: bytes) -> Note:
    """Read a note. Raises PeerFault for anything else."""
    if len(data) > NOTE_BYTES_MAX:
        raise PeerFault(f"a note of {len(data)} bytes, limit {NOTE_BYTES_MAX}", code="too-large")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        raise PeerFault("a note that is no UTF-8") from error
    if any(letter < " " and letter != "\n" for letter in whole):
        raise PeerFault("a note with control characters")
    text, split, rest = whole.rpartition("\n\n")
    if not split or not rest.endswith("\n"):
        raise PeerFault("a note without signatures")
    rows = rest[:-1].split("\n")
    if len(rows) > NOTE_SIGNATURES_MAX:
        raise PeerFault(f"a note with {len(rows)} signatures, limit {NOTE_SIGNATURES_MAX}")
    return Note(text + "\n", tuple(map(parse_line, rows)))


def parse_line(row: str) -> Line:
    """Read one signature line, without or with its newline. Raises PeerFault."""
    row = row.removesuffix("\n")
    name, _, data = row.removeprefix(_DASH).partition(" ")
    if not row.startswith(_DASH) or not well_named(name):
        raise PeerFault("not a signature line of a note")
    try:
        raw = binascii.a2b_base64(data.encode(), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise PeerFault("a signature that is no base64") from error
    if len(raw) <= _KEY_ID_BYTES or binascii.b2a_base64(raw, newline=False).decode() != data:
        raise PeerFault("a signature line with too little in it")
    return Line(name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:])


def well_named(name: str) -> bool:
    """Whether this can be a key's name: something, and neither space nor plus in it."""
    return bool(name) and "+" not in name and not any(letter.isspace() for letter in name)


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The four bytes that point at a key."""
    return sha256(name.encode() + b"\n" + bytes((kind,)) + public)[:_KEY_ID_BYTES]


def signed_by(note: Note, name: str, public: bytes) -> bool:
    """Whether a line is the Ed25519 signature of that key over the text."""
    wanted, data = key_id(name, ED25519, public), note.text.encode()
    return any(
        line.name == name
        and line.key_id == wanted
        and len(line.signature) == _SIGNATURE_BYTES
        and verify_ed25519(public, line.signature, data)
        for line in note.lines
    )


def signature_line(name: str, public: bytes, signature: bytes) -> Line:
    """The line of a signature over the text."""
    return Line(name, key_id(name, ED25519, public), signature)


def cosignature_input(text: str, at: int) -> bytes:
    """What a witness signs at Unix time `at`."""
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def cosignature_line(name: str, public: bytes, at: int, signature: bytes) -> Line:
    """The line of a witness's signature over `cosignature_input`."""
    stamp = at.to_bytes(_TIME_BYTES, "big")
    return Line(name, key_id(name, COSIGNATURE, public), stamp + signature)


def cosigned_at(text: str, line: Line, name: str, public: bytes) -> int | None:
    """When that witness cosigned `text`, Unix seconds; None when this line does not say so."""
    stamp, signature = line.signature[:_TIME_BYTES], line.signature[_TIME_BYTES:]
    if line.name != name or line.key_id != key_id(name, COSIGNATURE, public):
        return None
    at = int.from_bytes(stamp, "big")
    if len(signature) != _SIGNATURE_BYTES or at == 0 or at >= 1 << 63:
        return None
    return at if verify_ed25519(public, signature, cosignature_input(text, at)) else None
