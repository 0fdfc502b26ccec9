"""Halves of keys, and shares, that this device keeps for others (D22).

The key under which a device keeps its secrets is made of two halves. B lies with carriers, wrapped
to the carrier's own wrap key, and is given out live, wrapped to a key made for this one request, to
a reader that its person's root vouches for. A carrier that has heard of a device's removal gives it
nothing: a stolen device then opens nothing, even to somebody who knows its passphrase. Shares of an
archive's key (2 of n) are kept the same way, for every reader of the person.

| verb         | asks              | answer   | who may                                          |
|--------------|-------------------|----------|--------------------------------------------------|
| `keep-half`  | `{name, half}`    | `{}`     | a reader, for itself: `name` is ignored          |
| `half`       | `{name}`          | `{half}` | that reader, while its root vouches for it       |
| `keep-share` | `{name, half}`    | `{}`     | a reader; `name` is the archive's                |
| `share`      | `{name}`          | `{half}` | every reader of the same person                  |
| `archives`   | `{}`              | names    | every reader of the same person                  |
| `vouched`    | `{statement}`     | `{}`     | anybody: the newest word of a root counts        |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.crypto.wrap import WrapKey, wrap
from holdfast.device.peering.letters import Caller, Handler, body_of
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.limits.people import HALVES_MAX
from holdfast.wire.codec import pack, unpack
from holdfast.wire.person import READER, DeviceStatement, verify_statement
from holdfast.wire.signed import SIGNED_BYTES_MAX, Signed


class Half(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A half or a share, by name."""

    name: bytes
    half: bytes = b""


class Statement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person root's word on a device."""

    statement: Signed


class Done(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing to say."""


HALF: Final = "half"
SHARE: Final = "share"
HALF_BYTES_MAX: Final = 4 * 1_024
"""An archive's share comes with its line of the index, sealed to the person."""


def half_info(person: bytes, kind: str, name: bytes) -> bytes:
    """HPKE `info` of a half at rest: whose, and which."""
    return b"holdfast v1 " + kind.encode() + person + name


class Halves:
    """What one carrier keeps. `carries_for` says for whom."""

    def __init__(
        self, database: Database, key: WrapKey, carries_for: Callable[[bytes], bool]
    ) -> None:
        self._database = database
        self._key = key
        self._carries_for = carries_for

    def verbs(self) -> dict[str, Handler]:
        """What a `Desk` registers."""
        return {
            "keep-half": self._keep_half,
            "half": self._half,
            "keep-share": self._keep_share,
            "share": self._share,
            "archives": self._archives,
            "vouched": self._hear,
        }

    async def _keep_half(self, caller: Caller, body: bytes) -> Done:
        return self._keep(caller, HALF, caller.statement.device, body_of(Half, body).half)

    async def _keep_share(self, caller: Caller, body: bytes) -> Done:
        asked = body_of(Half, body)
        return self._keep(caller, SHARE, asked.name, asked.half)

    async def _half(self, caller: Caller, body: bytes) -> Half:
        body_of(Half, body)
        return self._give(caller, HALF, caller.statement.device)

    async def _share(self, caller: Caller, body: bytes) -> Half:
        return self._give(caller, SHARE, body_of(Half, body).name)

    async def _archives(self, caller: Caller, body: bytes) -> tuple[bytes, ...]:
        return self.archives(self._vouched(caller))

    def archives(self, person: bytes) -> tuple[bytes, ...]:
        """Names of a person's archives of which a share lies here."""
        rows = self._database.run(
            "select name from halves where person = ? and kind = ? order by name", (person, SHARE)
        )
        return tuple(name for (name,) in rows)

    def keep_own(self, person: bytes, name: bytes, share: bytes) -> None:
        """Keep this device's own share of an archive."""
        self._store(person, SHARE, name, share)

    def own(self, person: bytes, name: bytes) -> bytes | None:
        """This device's own share of an archive."""
        return self._load(person, SHARE, name)

    def _keep(self, caller: Caller, kind: str, name: bytes, half: bytes) -> Done:
        person = self._vouched(caller)
        if not self._carries_for(person):
            raise PeerFault("this device carries nothing for you", code="forbidden")
        row = self._database.one("select count(*) from halves")
        assert row is not None
        if row[0] >= HALVES_MAX or len(name) != 32 or not 0 < len(half) <= HALF_BYTES_MAX:
            raise PeerFault("no room for more halves", code="full")
        self._store(person, kind, name, half)
        return Done()

    def _store(self, person: bytes, kind: str, name: bytes, half: bytes) -> None:
        sealed = wrap(self._key.public, half, half_info(person, kind, name))
        with self._database.durable():
            self._database.run(
                "insert or replace into halves values (?, ?, ?, ?)", (person, kind, name, sealed)
            )

    def _load(self, person: bytes, kind: str, name: bytes) -> bytes | None:
        row = self._database.one(
            "select sealed from halves where person = ? and kind = ? and name = ?",
            (person, kind, name),
        )
        return self._key.unwrap(row[0], half_info(person, kind, name)) if row else None

    def _give(self, caller: Caller, kind: str, name: bytes) -> Half:
        person = self._vouched(caller)
        half = self._load(person, kind, name)
        if half is None:
            raise PeerFault("no such half here", code="unknown")
        return Half(name, half)

    async def _hear(self, caller: Caller, body: bytes) -> Done:
        signed = body_of(Statement, body).statement
        self._note(verify_statement(signed), signed)
        return Done()

    def _vouched(self, caller: Caller) -> bytes:
        """The person of a reader whose newest statement known here is still good."""
        newest = self._newest(caller.statement)
        if READER not in newest.roles:
            raise PeerFault("this device is out: its person said so", code="revoked")
        return newest.person

    def _newest(self, statement: DeviceStatement) -> DeviceStatement:
        row = self._database.one(
            "select statement from vouched where device = ?", (statement.device,)
        )
        if row is None:
            return statement
        known = verify_statement(unpack(Signed, row[0], bytes_max=SIGNED_BYTES_MAX))
        if known.person != statement.person:
            raise PeerFault("device that two persons vouch for", code="forbidden")
        return known if known.n >= statement.n else statement

    def _note(self, statement: DeviceStatement, signed: Signed) -> None:
        if self._newest(statement) is not statement:
            return
        with self._database.durable():
            self._database.run(
                "insert or replace into vouched values (?, ?)", (statement.device, pack(signed))
            )
