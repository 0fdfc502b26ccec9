"""The seed phrase of a person, and the keys that grow from it (D7).

Words are BIP39 English, 24 or 12 of them, always made from entropy that a machine drew. One that a
person thought up fails its checksum 255 times in 256 (15 in 16 for twelve words), and nothing here
makes a checksum fit. Keys are SLIP-0010 Ed25519, hardened steps only, below purpose 18502' ("HF"):

| branch   | path           | what it is                                                           |
|----------|----------------|----------------------------------------------------------------------|
| root     | m/18502'/0'/i' | Ed25519 person root: signs the statements that make devices members; |
|          |                | i counts roots after a change, the first is 0                        |
| keyring  | m/18502'/1'/i' | 32 secret bytes: era secret of the person's keyring group, the same  |
|          |                | on all devices and after recovery (D16)                              |
| recovery | m/18502'/2'/i' | 32 secret bytes: key to which both halves of two-key data are sealed |
|          |                | for the day when all devices are gone (D22)                          |
| copies   | m/18502'/3'/i' | 32 secret bytes: the X25519 scalar of the age key that opens copies  |
|          |                | of headquarters' store (ADR 0044)                                    |

The BIP39 passphrase is empty: a second secret that nobody writes down loses more than it guards.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from mnemonic import Mnemonic

from holdfast.crypto.keys import SigningKey
from holdfast.errors import UsageError

PURPOSE: Final = 18_502
BRANCH_ROOT: Final = 0
BRANCH_KEYRING: Final = 1
BRANCH_RECOVERY: Final = 2
BRANCH_COPIES: Final = 3
ENTROPY_BYTES: Final = {12: 16, 24: 32}
"""Words to entropy."""
_HARDENED: Final = 0x8000_0000
_PREFIX_LETTERS: Final = 4
"""BIP39's English words differ within their first four letters."""


class Phrase:
    """A checked seed phrase. Shows its words only when asked."""

    __slots__ = ("_words",)

    def __init__(self, words: tuple[str, ...]) -> None:
        self._words = words

    def __repr__(self) -> str:
        return f"Phrase({len(self._words)} words)"

    @classmethod
    def from_entropy(cls, entropy: bytes) -> Phrase:
        """The phrase for 32 (24 words) or 16 (12 words) freshly drawn bytes."""
        assert len(entropy) in ENTROPY_BYTES.values()
        return cls(tuple(_list().to_mnemonic(entropy).split()))

    @classmethod
    def parse(cls, text: str) -> Phrase:
        """The phrase somebody typed; words may be cut to four letters. Raises UsageError."""
        words = text.lower().split()
        if len(words) not in ENTROPY_BYTES:
            raise UsageError(f"a seed phrase has 24 or 12 words, this one has {len(words)}")
        whole = tuple(_whole(word, position) for position, word in enumerate(words, 1))
        if not _list().check(" ".join(whole)):
            raise UsageError("the checksum of the phrase is wrong: two words swapped, or one wrong")
        return cls(whole)

    def words(self) -> tuple[str, ...]:
        """The words, for a person to write down."""
        return self._words

    def seed(self) -> bytes:
        """BIP39's 64-byte seed."""
        return bytes(Mnemonic.to_seed(" ".join(self._words)))

    def root(self, index: int = 0) -> SigningKey:
        """The person root."""
        return SigningKey(self._branch(BRANCH_ROOT, index))

    def keyring_secret(self, index: int = 0) -> bytes:
        """The era secret of the person's keyring group."""
        return self._branch(BRANCH_KEYRING, index)

    def recovery_secret(self, index: int = 0) -> bytes:
        """The key of last-resort recovery."""
        return self._branch(BRANCH_RECOVERY, index)

    def copies_secret(self, index: int = 0) -> bytes:
        """The scalar of the age key to which headquarters' copies are sealed."""
        return self._branch(BRANCH_COPIES, index)

    def _branch(self, branch: int, index: int) -> bytes:
        return derive(self.seed(), (PURPOSE, branch, index)).key


class Node(NamedTuple):
    """A SLIP-0010 node: private key and chain code, 32 bytes each."""

    key: bytes
    chain: bytes


def derive(seed: bytes, path: Sequence[int]) -> Node:
    """SLIP-0010 for Ed25519: every step of `path` is hardened; numbers are below 2^31."""
    node = _split(hmac.digest(b"ed25519 seed", seed, "sha512"))
    for step in path:
        assert 0 <= step < _HARDENED, "hardening is implied"
        data = b"\x00" + node.key + (step | _HARDENED).to_bytes(4, "big")
        node = _split(hmac.digest(node.chain, data, "sha512"))
    return node


def _split(digest: bytes) -> Node:
    return Node(digest[:32], digest[32:])


def _whole(word: str, position: int) -> str:
    words = _list().wordlist
    if word in words:
        return word
    if len(word) >= _PREFIX_LETTERS:
        near = [known for known in words if known[:_PREFIX_LETTERS] == word[:_PREFIX_LETTERS]]
        if len(near) == 1 and near[0].startswith(word):
            return near[0]
        if near:
            raise UsageError(f"word {position}, {word!r}, is not in the list; {near[0]!r}?")
    raise UsageError(f"word {position}, {word!r}, is not in the list of words")


def word_list() -> tuple[str, ...]:
    """The 2,048 English words, which other short texts for people use too."""
    return tuple(_list().wordlist)


@cache
def _list() -> Mnemonic:
    return Mnemonic("english")
