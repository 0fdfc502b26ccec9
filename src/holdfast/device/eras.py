"""The eras of one group on this device: which ones it can open, and how it comes by new ones (D16).

A new era's secret travels in the log of the era before it, wrapped to every reader: to persons in
most groups, to devices and the person root in a keyring. Whoever opens a newer era finds the key of
the one before in it, and so on back to the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.era import Era
from holdfast.crypto.pure import derive_key
from holdfast.crypto.wrap import WrapKey, wrap
from holdfast.errors import PeerFault, UsageError
from holdfast.limits.people import ERA_SEALS_MAX
from holdfast.logic.group.members import Rekey

_NONCE: Final = bytes(12)
Readers = Sequence[tuple[bytes, WrapKey]]
"""(reader, its wrap key): under which names this device opens rekeys. A person had other wrap keys
earlier, so a reader may stand there several times."""


def era_info(group: bytes, number: int, tag: bytes) -> bytes:
    """HPKE `info` of a rekey's seals: which era of which group this is (D9)."""
    return b"holdfast v1 era" + group + number.to_bytes(4, "big") + tag


def device_wrap(seed: bytes) -> WrapKey:
    """A device's own wrap key, from the seed of its signing key."""
    return WrapKey(derive_key("holdfast v1 device wrap", seed))


def person_wrap(keyring_secret: bytes) -> WrapKey:
    """A person's wrap key: all devices that open that era of the keyring have it."""
    return WrapKey(derive_key("holdfast v1 person wrap", keyring_secret))


def recovery_wrap(recovery_secret: bytes) -> WrapKey:
    """The root's wrap key in its own keyring: grown from the words, kept nowhere."""
    return WrapKey(derive_key("holdfast v1 recovery wrap", recovery_secret))


def begin_era(group: bytes, era: Era, before: Era, wraps: Mapping[bytes, bytes]) -> Rekey:
    """The entry that begins `era` after `before`, sealed to the wrap key of every reader.

    Raises UsageError when there are more readers than one operation can seal to.
    """
    if len(wraps) > ERA_SEALS_MAX:
        raise UsageError(f"a group of {len(wraps)} persons; {ERA_SEALS_MAX} is the most")
    info = era_info(group, era.number, era.tag)
    sealed = tuple((reader, wrap(public, era.secret, info)) for reader, public in wraps.items())
    return Rekey(
        era.number, era.tag, before.tag, _back(era).encrypt(_NONCE, before.secret, None), sealed
    )


def _back(era: Era) -> ChaCha20Poly1305:
    """Seals the secret of the era before; one key, one message."""
    return ChaCha20Poly1305(derive_key("holdfast v1 era back", era.secret))


class Shelf:
    """Eras of one group, by tag. `number` counts from 0; era 0's tag is in no operation."""

    def __init__(self, group: bytes, network: bytes, eras: Iterable[Era]) -> None:
        self._group = group
        self._network = network
        self._eras = {era.tag: era for era in eras}
        self._refused: set[bytes] = set()

    def all(self) -> tuple[Era, ...]:
        """What can be opened here, oldest first."""
        return tuple(sorted(self._eras.values(), key=lambda era: (era.number, era.tag)))

    def add(self, era: Era) -> None:
        """Be able to open `era`."""
        self._eras[era.tag] = era

    def get(self, tag: bytes) -> Era | None:
        """The era of that tag, if it can be opened here."""
        return self._eras.get(tag)

    def learn(self, rekeys: Sequence[Rekey], readers: Readers) -> list[Era]:
        """Open what `rekeys` tell of and we can: by our own seal, or back from a newer one. Whether
        the group accepts them is not asked: whoever comes later learns that from earlier eras."""
        known = set(self._eras)
        numbers = {rekey.tag: rekey.number for rekey in rekeys}
        for rekey in sorted(rekeys, key=lambda one: one.number, reverse=True):
            if rekey.tag not in self._eras:
                era = self._open(rekey, readers)
                if era is not None:
                    self.add(era)
            earlier = self._before(rekey, numbers.get(rekey.before, 0))
            if earlier is not None:
                self.add(earlier)
        return [era for era in self.all() if era.tag not in known]

    def _open(self, rekey: Rekey, readers: Readers) -> Era | None:
        if rekey.tag in self._refused:
            return None
        info = era_info(self._group, rekey.number, rekey.tag)
        for reader, key in readers:
            for name, sealed in rekey.sealed:
                if name == reader:
                    era = self._unwrapped(key, sealed, info, rekey)
                    if era is not None:
                        return era
        self._refused.add(rekey.tag)
        return None

    def _unwrapped(self, key: WrapKey, sealed: bytes, info: bytes, rekey: Rekey) -> Era | None:
        try:
            era = Era(key.unwrap(sealed, info), self._network, rekey.number)
        except PeerFault:
            return None
        return era if era.tag == rekey.tag else None

    def _before(self, rekey: Rekey, number: int) -> Era | None:
        """The era before one that we can open."""
        era = self._eras.get(rekey.tag)
        if era is None or rekey.before in self._eras:
            return None
        try:
            secret = _back(era).decrypt(_NONCE, rekey.back, None)
        except InvalidTag:
            return None
        if len(secret) != len(era.secret):
            return None
        earlier = Era(secret, self._network, number)
        return earlier if earlier.tag == rekey.before else None
