"""What this device caught servers at, on disk: findings, and the proofs that some come with.

A finding names a server, a lie and a tag, with when it was first and last met; a device believes
its own findings. A proof (`wire.evidence`) convinces others too, and is handed to HQ once.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from holdfast.fabric.database import Database
from holdfast.limits.evidence import PROOFS_KEPT_MAX
from holdfast.logic.pool.lies import MEANING, Lie
from holdfast.wire.evidence import Evidence, evidence_id, pack_evidence

_log = logging.getLogger(__name__)

SCHEMA: Final = """
create table if not exists findings (
    node blob not null, tag blob not null, lie text not null, name text not null,
    slot blob not null, first_at real not null, last_at real not null, count integer not null,
    detail text not null, proof blob,
    primary key (node, tag, lie)
) without rowid, strict;
create table if not exists proofs (
    id blob primary key, node blob not null, kind text not null, at real not null,
    data blob not null, told_at real
) without rowid, strict;
"""


class Accused(msgspec.Struct, frozen=True):
    """Who is accused, in which matter."""

    name: str
    node: bytes
    slot: bytes
    tag: bytes


class Finding(msgspec.Struct, frozen=True):
    """One kind of lie of one server to one group. `proof` is the id of a proof, if there is one."""

    name: str
    node: bytes
    slot: bytes
    tag: bytes
    lie: Lie
    first_at: float
    last_at: float
    count: int
    detail: str
    proof: bytes | None

    @property
    def text(self) -> str:
        """One sentence for a person."""
        proven = ", with proof" if self.proof else ""
        return f"{self.name} {MEANING[self.lie]} ({self.detail}{proven})"


class FindingBook:
    """The findings of one device."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(
        self,
        accused: Accused,
        lie: Lie,
        detail: str,
        wall_s: float,
        evidence: Evidence | None = None,
    ) -> None:
        """Keep a finding. The first proof of a kind is kept; more of them add nothing."""
        with self._database.commit():
            proof = self._keep_proof(accused, evidence, wall_s) if evidence else None
            self._database.run(
                "insert into findings values (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)"
                " on conflict do update set last_at = excluded.last_at, count = count + 1,"
                " name = excluded.name, detail = excluded.detail,"
                " proof = coalesce(proof, excluded.proof)",
                (
                    *(accused.node, accused.tag, str(lie), accused.name, accused.slot),
                    *(wall_s, wall_s, detail[:300], proof),
                ),
            )
        _log.error("%s %s: %s", accused.name, MEANING[lie], detail)

    def _keep_proof(self, accused: Accused, evidence: Evidence, wall_s: float) -> bytes | None:
        data = pack_evidence(evidence)
        name = evidence_id(data)
        row = self._database.one("select count(*) from proofs")
        assert row is not None
        if row[0] >= PROOFS_KEPT_MAX:
            return None
        values = (name, accused.node, str(evidence.kind), wall_s, data)
        self._database.run("insert or ignore into proofs values (?, ?, ?, ?, ?, null)", values)
        return name

    def all(self, tag: bytes | None = None) -> list[Finding]:
        """Findings in the matter of one tag, or all, oldest first."""
        return read_findings(self._database, tag)

    def proof(self, name: bytes) -> bytes | None:
        """A proof by its id."""
        row = self._database.one("select data from proofs where id = ?", (name,))
        return bytes(row[0]) if row else None

    def untold(self, slot: bytes) -> list[tuple[bytes, bytes]]:
        """(id, bytes) of the proofs about servers of `slot` that HQ was not handed yet."""
        return self._database.run(
            "select id, data from proofs where told_at is null and node in"
            " (select node from findings where slot = ?) order by at",
            (slot,),
        )

    def told(self, name: bytes, wall_s: float) -> None:
        """HQ has this one, or does not want it."""
        with self._database.commit():
            self._database.run("update proofs set told_at = ? where id = ?", (wall_s, name))


def read_findings(database: Database, tag: bytes | None = None) -> list[Finding]:
    """As `FindingBook.all`, for whoever looks at a database from outside."""
    where = "" if tag is None else " where tag = ?"
    rows = database.run(
        "select name, node, slot, tag, lie, first_at, last_at, count, detail, proof"
        f" from findings{where} order by first_at",
        () if tag is None else (tag,),
    )
    return [
        msgspec.convert(dict(zip(Finding.__struct_fields__, row, strict=True)), Finding)
        for row in rows
    ]
