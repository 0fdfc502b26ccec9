"""What this client believes of a network beside its records: who is excluded, whose word counts.

One row for each network: the revocation lists whose union is known (grow-only, D6), and the
witness set that is followed, with when it last changed (ADR 0010). Both come stapled with openings
of sessions, are signed by HQ and vouched for by a pinned root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.rootset import only_roots
from holdfast.fabric.database import Database
from holdfast.logic.fleet.model import NetworkId, SlotRecord, Version
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked
from holdfast.logic.trust.witnesses import SetVerdict, WitnessSet, judge_set
from holdfast.rim.clock import Clock
from holdfast.wire.codec import pack
from holdfast.wire.logged import approvers, cosigners
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type, decode_body
from holdfast.wire.staple import presented, verify_staple

SCHEMA: Final = """
create table if not exists revocation_lists (
    network blob not null, digest blob not null, staple blob not null,
    primary key (network, digest)
) without rowid, strict;
create table if not exists witness_sets (
    network blob primary key, staple blob not null, changed_at real not null
) without rowid, strict;
"""


class TrustBook:
    """One client's beliefs, for every network it is in."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lists: dict[NetworkId, RevocationList] = {}
        self._sets: dict[NetworkId, tuple[WitnessSet, float]] = {}
        self.refused: SetVerdict | None = None
        """Why the newest witness set offered is not followed, if it is not."""
        for (data,) in database.run("select staple from revocation_lists"):
            news = _list_in(data)
            self.revocations(news.network).fold(news)
        for data, changed_at in database.run("select staple, changed_at from witness_sets"):
            known = _set_in(data)
            self._sets[known.network] = known, changed_at

    # --- Exclusion -------------------------------------------------------------------------------
    def revocations(self, network: NetworkId) -> RevocationList:
        """Everybody who is excluded from a network, as far as is known here."""
        return self._lists.setdefault(network, RevocationList(network))

    def excluded(self, network: NetworkId, chain: Iterable[bytes]) -> Revoked | None:
        """The entry that excludes a server which showed this chain (DER), if any."""
        return self.revocations(network).find_in(presented(der) for der in chain)

    def take_revocations(
        self, network: NetworkId, roots: Sequence[bytes], staple: Staple
    ) -> tuple[Revoked, ...]:
        """Unite with a list; the entries that are new. Raises PeerFault."""
        known = self.revocations(network)
        now = self._clock.wall()
        news = verify_staple(roots, staple, Type.REVOCATIONS, Revocations, now, revocations=known)
        if news.network != network:
            return ()
        newer = news.version > known.version
        fresh = known.fold(news)
        if fresh or newer:
            self._keep_list(network, news, pack(staple))
        return fresh

    def _keep_list(self, network: NetworkId, news: Revocations, data: bytes) -> None:
        """Write the list down in place of those that it contains."""
        entries = set(news.entries)
        rows = self._database.run(
            "select digest, staple from revocation_lists where network = ?", (network,)
        )
        outdone = [digest for digest, old in rows if set(_list_in(old).entries) <= entries]
        with self._database.durable():
            for digest in outdone:
                self._database.run("delete from revocation_lists where digest = ?", (digest,))
            self._database.run(
                "insert or replace into revocation_lists values (?, ?, ?)",
                (network, hash_bytes(data), data),
            )

    # --- Witnesses -------------------------------------------------------------------------------
    def witness_set(self, network: NetworkId) -> WitnessSet | None:
        """The set that is followed."""
        held = self._sets.get(network)
        return held[0] if held else None

    def forget_witnesses(self, network: NetworkId) -> None:
        """Follow no set: the next one shown is the first again."""
        with self._database.durable():
            self._database.run("delete from witness_sets where network = ?", (network,))
        self._sets.pop(network, None)

    def needed(self, network: NetworkId) -> int:
        """Owners that a changed record must bring; 0 while there are not two (shown as such)."""
        known = self.witness_set(network)
        return known.needed if known else 0

    def take_witnesses(
        self, network: NetworkId, roots: Sequence[bytes], staple: Staple
    ) -> SetVerdict:
        """Judge a witness set, and follow it when the rules allow. Raises PeerFault."""
        now = self._clock.wall()
        offered = verify_staple(
            roots,
            staple,
            Type.WITNESSES,
            WitnessSet,
            now,
            revocations=self.revocations(network),
        )
        known, changed_at = self._sets.get(network, (None, now))
        since_s = max(0.0, now - changed_at) * self._clock.scale
        owners = self.cosigners(network, roots, staple)
        verdict = judge_set(known, offered, since_s=since_s, cosigners=len(owners))
        if offered.network != network:
            verdict = SetVerdict.MISSHAPEN
        if verdict is SetVerdict.ADOPT:
            with self._database.durable():
                self._database.run(
                    "insert or replace into witness_sets values (?, ?, ?)",
                    (network, pack(staple), now),
                )
            self._sets[network] = offered, now
            self.refused = None
        elif verdict not in (SetVerdict.SAME, SetVerdict.OLDER):
            self.refused = verdict
        return verdict

    def cosigners(
        self, network: NetworkId, roots: Sequence[bytes], staple: Staple
    ) -> frozenset[str]:
        """Owners of the followed set who cosigned that `staple` is in the log. Raises PeerFault."""
        return cosigners(
            roots,
            staple,
            self.witness_set(network),
            domain=cert_info(only_roots(roots)[0]).domain,
            network=network,
            now=self._clock.wall(),
            revocations=self.revocations(network),
        )

    def approvers(self, staple: Staple, record: SlotRecord) -> frozenset[str]:
        """Owners of the followed set who want exactly this record followed. Raises PeerFault."""
        return approvers(staple, record, self.witness_set(record.network))

    def versions(self, network: NetworkId) -> tuple[Version | None, Version | None]:
        """Of the revocations and of the witness set: what servers need not staple again."""
        known, listed = self.witness_set(network), self._lists.get(network)
        return (listed.version if listed else None), (known.version if known else None)


def _list_in(data: bytes) -> Revocations:
    signed = msgspec.msgpack.decode(data, type=Staple).signed
    return decode_body(Type.REVOCATIONS, Revocations, signed)


def _set_in(data: bytes) -> WitnessSet:
    signed = msgspec.msgpack.decode(data, type=Staple).signed
    return decode_body(Type.WITNESSES, WitnessSet, signed)
