"""The keys that calls through nodes are sealed to: each headquarters has its own (ADR 0044).

`front.keys` in the directory holds the newest key and those whose last statement has not ended. It
is in no snapshot: what opens a snapshot shall not open calls. The statement about the newest lies
in the store under `/front/keys/<node>`, where every headquarters finds those of all others; one
that is gone drops out when its statement ends, one that is revoked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from holdfast.crypto.pure import base32
from holdfast.crypto.sealedcall import RECIPIENTS_MAX, key_id
from holdfast.crypto.wrap import WrapKey
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.authority import Authority
from holdfast.hq.revocation import RevocationBook
from holdfast.limits.front import FRONT_KEY_DRAWN_S, FRONT_KEY_S
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Put
from holdfast.rim.entropy import Entropy
from holdfast.rim.files import read_file, write_file
from holdfast.wire.codec import pack, unpack
from holdfast.wire.front import FrontKey, FrontKeys
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple

FILE: Final = "front.keys"
KEYS: Final = "/front/keys/"
_STAPLE_BYTES_MAX: Final = 64 * 1024


class Drawn(msgspec.Struct, frozen=True):
    """One entry of the file. `told_until` is when the last statement about it ends."""

    seed: bytes
    drawn_at: float
    told_until: float


class FrontKeyring:
    """Our front keys, and what all headquarters say of theirs."""

    def __init__(
        self,
        directory: Path,
        store: ControlStore,
        authority: Authority,
        revocations: RevocationBook,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._path = directory / FILE
        self._store = store
        self._authority = authority
        self._revocations = revocations
        self._clock = clock
        self._entropy = entropy
        self._drawn: tuple[Drawn, ...] = ()
        self._mine: dict[bytes, WrapKey] = {}

    @property
    def mine(self) -> Mapping[bytes, WrapKey]:
        """What opens calls, by id."""
        return self._mine

    async def refresh(self) -> None:
        """Tell the newest key anew; draw one when it is due. Raises OperationFault."""
        now = self._clock.wall()
        drawn = tuple(item for item in self._drawn or self._load() if item.told_until > now)
        newest = max(drawn, key=lambda item: item.drawn_at, default=None)
        if newest is None or now - newest.drawn_at > FRONT_KEY_DRAWN_S:
            newest = Drawn(self._entropy.bytes(32), now, now)
            drawn = (*drawn, newest)
        told = msgspec.structs.replace(newest, told_until=now + FRONT_KEY_S)
        self._drawn = tuple(told if item == newest else item for item in drawn)
        write_file(self._path, pack(self._drawn))
        keys = [WrapKey(item.seed) for item in self._drawn]
        self._mine = {key_id(key.public): key for key in keys}
        public = keys[self._drawn.index(told)].public
        statement = FrontKey(self._authority.network, public, int(told.told_until))
        staple = self._authority.sign(Type.FRONT_KEY, statement)
        await self._store.txn([], [Put(KEYS + base32(self._authority.node), pack(staple))])

    async def told(self) -> FrontKeys:
        """What callers must know. Raises OperationFault."""
        revocations = self._revocations.staple
        assert revocations is not None, "loaded before the API serves"
        found = []
        for kv in (await self._store.range(KEYS)).items:
            staple = unpack(Staple, kv.value, bytes_max=_STAPLE_BYTES_MAX)
            key = self._believed(staple)
            if key is not None:
                found.append((key.expires_at, staple))
        found.sort(key=lambda item: item[0])
        staples = tuple(staple for _, staple in found[-RECIPIENTS_MAX:])
        return FrontKeys(self._authority.roots, staples, self._authority.current(revocations))

    def _believed(self, staple: Staple) -> FrontKey | None:
        now = self._clock.wall()
        try:
            key = verify_staple(
                self._authority.roots,
                staple,
                Type.FRONT_KEY,
                FrontKey,
                now,
                revocations=self._revocations.entries,
            )
        except PeerFault:
            return None
        return key if key.expires_at > now else None

    def _load(self) -> tuple[Drawn, ...]:
        data = read_file(self._path)
        if data is None:
            return ()
        try:
            return msgspec.msgpack.decode(data, type=tuple[Drawn, ...])
        except (msgspec.DecodeError, ValueError) as error:
            raise OperationFault(
                f"{self._path} is damaged; remove it: {error}", retryable=False
            ) from error
