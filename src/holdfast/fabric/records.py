"""The slot records this client follows, kept on disk with when it last followed a change (D4).

The adoption machine counts in elapsed seconds, which start anew with each process; the disk holds
wall times. Reopening turns an age on the wall clock into an age on the elapsed one. A wall clock
that was set back makes a change look younger, never older.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.rootset import only_roots
from holdfast.fabric import trust
from holdfast.fabric.database import Database
from holdfast.limits.trust import WITNESSES_NEEDED
from holdfast.logic.fleet.model import SlotRecord
from holdfast.logic.trust.adoption import NEVER, Judgement, Known, Verdict, judge
from holdfast.rim.clock import Clock
from holdfast.wire.codec import pack
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.staple import verify_staple

SCHEMA: Final = (
    trust.SCHEMA
    + """
create table if not exists records (
    slot blob primary key, staple blob not null, witnesses integer not null,
    relays_changed_at real, replicas_changed_at real
) without rowid, strict;
create table if not exists record_conflicts (
    slot blob not null, one blob not null, other blob not null, at real not null,
    primary key (one, other)
) without rowid, strict;
"""
)


class RecordBook:
    """The followed record of each slot."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.trust = trust.TrustBook(database, clock)
        self._known: dict[bytes, Known] = {}
        self._staples: dict[bytes, bytes] = {}
        for row in database.run("select * from records"):
            self._load(*row)

    def known(self, slot: bytes) -> Known | None:
        """What this client follows for `slot`."""
        return self._known.get(slot)

    def staple(self, slot: bytes) -> Staple | None:
        """The followed record as HQ signed it, to show to others."""
        data = self._staples.get(slot)
        return msgspec.msgpack.decode(data, type=Staple) if data else None

    def offer(
        self,
        slot: bytes,
        roots: tuple[bytes, ...],
        staple: Staple,
        *,
        k: int = WITNESSES_NEEDED,
    ) -> Judgement:
        """Verify and judge a stapled record; follow it when the rules allow. `k`: how many owners
        must have cosigned it, where the network has that many.

        Raises PeerFault when it is not a statement of this network's HQ.
        """
        network = network_of(roots)
        record = verify_staple(
            roots,
            staple,
            Type.SLOT_RECORD,
            SlotRecord,
            self._clock.wall(),
            revocations=self.trust.revocations(network),
        )
        witnesses = len(self.trust.cosigners(network, roots, staple))
        judgement = judge(
            self._known.get(slot),
            record,
            self._clock.elapsed(),
            witnesses=witnesses,
            witnesses_needed=min(k, self.trust.needed(network)),
            approved=len(self.trust.approvers(staple, record)),
        )
        if record.slot != slot:
            return Judgement(Verdict.FOREIGN, self._known.get(slot))
        if judgement.verdict is Verdict.ADOPT:
            assert judgement.known is not None
            self._follow(slot, judgement.known, staple)
        elif judgement.verdict is Verdict.SAME:
            self._note_witnesses(slot, witnesses, staple)
        elif judgement.verdict is Verdict.CONFLICT:
            self._keep_conflict(slot, pack(staple))
        return judgement

    def forget(self, slot: bytes) -> None:
        """Follow nothing for `slot`: the next record shown is the first again."""
        with self._database.durable():
            self._database.run("delete from records where slot = ?", (slot,))
        self._known.pop(slot, None)
        self._staples.pop(slot, None)

    def conflicts(self, slot: bytes) -> int:
        """Pairs of different records with one version that HQ signed for `slot`."""
        row = self._database.one("select count(*) from record_conflicts where slot = ?", (slot,))
        assert row is not None
        return int(row[0])

    def _follow(self, slot: bytes, known: Known, staple: Staple) -> None:
        data = pack(staple)
        times = [self._to_wall(t) for t in (known.relays_changed_at, known.replicas_changed_at)]
        with self._database.durable():
            self._database.run(
                "insert or replace into records values (?, ?, ?, ?, ?)",
                (slot, data, known.witnesses, *times),
            )
        self._known[slot], self._staples[slot] = known, data

    def _note_witnesses(self, slot: bytes, witnesses: int, staple: Staple) -> None:
        """The record we follow has come with more cosignatures than it had."""
        known = self._known[slot]
        if witnesses > known.witnesses:
            self._follow(slot, msgspec.structs.replace(known, witnesses=witnesses), staple)

    def _keep_conflict(self, slot: bytes, staple: bytes) -> None:
        with self._database.commit():
            self._database.run(
                "insert or ignore into record_conflicts values (?, ?, ?, ?)",
                (slot, self._staples[slot], staple, self._clock.wall()),
            )

    def _load(
        self,
        slot: bytes,
        staple: bytes,
        witnesses: int,
        relays_changed_at: float | None,
        replicas_changed_at: float | None,
    ) -> None:
        signed = msgspec.msgpack.decode(staple, type=Staple).signed
        record = decode_body(Type.SLOT_RECORD, SlotRecord, signed)
        self._known[slot] = Known(
            record,
            self._to_elapsed(relays_changed_at),
            self._to_elapsed(replicas_changed_at),
            witnesses,
        )
        self._staples[slot] = staple

    def _to_wall(self, elapsed_at: float) -> float | None:
        if elapsed_at == NEVER:
            return None
        return self._clock.wall() - (self._clock.elapsed() - elapsed_at) / self._clock.scale

    def _to_elapsed(self, wall_at: float | None) -> float:
        if wall_at is None:
            return NEVER
        age_s = max(0.0, self._clock.wall() - wall_at) * self._clock.scale
        return self._clock.elapsed() - age_s


def network_of(roots: tuple[bytes, ...]) -> bytes:
    """The network that pinned roots are of."""
    name = cert_info(only_roots(roots)[0]).name
    assert name is not None, "a pinned root names its network"
    return name.network
