"""The keys of a process provider: the account's own, and those it gave out for less.

`key` holds the account's own, as its owner would have it from the provider's web page. `keys.json`
holds what was given out, by hash: whoever reads the provider's disk cannot use one. The file is
read for every call, so that a key that is taken back is refused from the next call on.
"""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault, UsageError
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, write_file
from holdfast.wire.cloud import SCOPES, KeyInfo, KeyMade

KEYS_FILE: Final = "keys.json"
KEYS_MAX: Final = 100
"""Keys of one account; a headquarters has one, and two while it rotates."""
_ID_DIGITS: Final = 16


class KeyRow(msgspec.Struct, frozen=True):
    """A key given out, by the BLAKE3 of it in hex; the first digits are its id."""

    hash: str
    scopes: tuple[str, ...]
    made_at: float
    note: str = ""

    @property
    def info(self) -> KeyInfo:
        """What is told of it."""
        return KeyInfo(self.hash[:_ID_DIGITS], self.scopes, self.made_at, self.note)


def provider_key(directory: Path, entropy: Entropy) -> str:
    """The account's own key, made on first use."""
    path = directory / "key"
    data = read_file(path)
    if data is None:
        data = entropy.bytes(32).hex().encode()
        write_file(path, data)
    return data.decode().strip()


class Keys:
    """The keys in a provider's directory. `own` is the account's, empty for none."""

    def __init__(self, directory: Path, own: str = "") -> None:
        self._path = directory / KEYS_FILE
        self._own = own.encode()

    def find(self, authorization: bytes) -> KeyInfo | None:
        """Whose header this is; None for a stranger's."""
        given = authorization.removeprefix(b"Bearer ")
        if self._own and hmac.compare_digest(given, self._own):
            return KeyInfo("", SCOPES, 0.0)
        known = hash_bytes(given).hex()
        for row in self._rows():
            if hmac.compare_digest(row.hash, known):
                return row.info
        return None

    def make(self, scopes: tuple[str, ...], note: str, now: float, entropy: Entropy) -> KeyMade:
        """Give one out. Raises UsageError for scopes that are none."""
        if not scopes or set(scopes) - set(SCOPES):
            raise UsageError(f"scopes are of {', '.join(SCOPES)}")
        rows = self._rows()
        if len(rows) >= KEYS_MAX:
            raise UsageError(f"{KEYS_MAX} keys are out; take one back first")
        key = entropy.bytes(32).hex()
        row = KeyRow(hash_bytes(key.encode()).hex(), scopes, now, note)
        self._save((*rows, row))
        return KeyMade(row.info.id, key)

    def list(self) -> tuple[KeyInfo, ...]:
        """What is out."""
        return tuple(row.info for row in self._rows())

    def revoke(self, id: str) -> KeyInfo:
        """Take one back. Raises PeerFault (`not-found`)."""
        rows = self._rows()
        for row in rows:
            if row.info.id == id:
                self._save(tuple(each for each in rows if each is not row))
                return row.info
        raise PeerFault(f"no key {id}", code="not-found")

    def _rows(self) -> tuple[KeyRow, ...]:
        data = read_file(self._path)
        return msgspec.json.decode(data, type=tuple[KeyRow, ...]) if data else ()

    def _save(self, rows: tuple[KeyRow, ...]) -> None:
        write_file(self._path, msgspec.json.encode(rows))
