"""Tickets this client holds (D17): blinded, drawn, and each bound to one tag for ever.

What was blinded is on the disk before HQ is asked, so that a lost answer is asked for again and
nothing is paid twice. A tag gets its ticket when a server first wants one; from then on the same
ticket goes to every server of that tag, and to no other tag.
"""

from __future__ import annotations

from typing import Final

import msgspec

from holdfast.crypto.blindrsa import PREFIX_BYTES, SALT_BYTES, BlindPublicKey
from holdfast.fabric.database import Database
from holdfast.logic.fleet.model import NetworkId
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.tickets import Ticket, TicketClass, ticket_message

SCHEMA: Final = """
create table if not exists tickets (
    number integer primary key, network blob not null, key blob not null, prefix blob not null,
    inverse text not null, blinded blob not null, signature blob, expires_at integer not null,
    tag blob unique
) strict;
"""


class Blinded(msgspec.Struct, frozen=True):
    """A ticket that HQ has not signed yet: what HQ sees is `blinded`."""

    number: int
    prefix: bytes
    inverse: int
    blinded: bytes


class Wallet:
    """The tickets of one client, for every network it is in."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def blind(
        self, network: NetworkId, item: TicketClass, count: int, entropy: Entropy
    ) -> list[Blinded]:
        """`count` tickets to have signed under this key, those blinded before first; durable."""
        key = BlindPublicKey(item.spki)
        waiting = self._waiting(network, key.id)
        with self._database.durable():
            for _ in range(count - len(waiting)):
                prefix = entropy.bytes(PREFIX_BYTES)
                message = ticket_message(prefix, network)
                salt, factor = entropy.bytes(SALT_BYTES), entropy.bytes(key.factor_bytes)
                blinded, inverse = key.blind(message, salt, factor)
                self._database.run(
                    "insert into tickets (network, key, prefix, inverse, blinded, expires_at)"
                    " values (?, ?, ?, ?, ?, ?)",
                    (network, key.id, prefix, f"{inverse:x}", blinded, item.expires_at),
                )
        return self._waiting(network, key.id)[:count]

    def _waiting(self, network: NetworkId, key: bytes) -> list[Blinded]:
        rows = self._database.run(
            "select number, prefix, inverse, blinded from tickets"
            " where network = ? and key = ? and signature is null order by number",
            (network, key),
        )
        return [
            Blinded(n, prefix, int(inverse, 16), blinded) for n, prefix, inverse, blinded in rows
        ]

    def take(
        self,
        network: NetworkId,
        item: TicketClass,
        asked: list[Blinded],
        answers: tuple[bytes, ...],
    ) -> int:
        """Keep what HQ signed; how many. Raises PeerFault when one answer is no signature."""
        key = BlindPublicKey(item.spki)
        signed = [
            (
                key.finalize(ticket_message(one.prefix, network), answer, one.inverse),
                one.number,
            )
            for one, answer in zip(asked, answers, strict=True)
        ]
        with self._database.durable():
            # The inverse is what links a ticket to what HQ saw: it goes as soon as it is used.
            self._database.many(
                "update tickets set signature = ?, inverse = '' where number = ?", signed
            )
        return len(signed)

    def count(self, network: NetworkId) -> int:
        """Tickets at hand that no tag has."""
        row = self._database.one(
            "select count(*) from tickets where network = ? and signature is not null"
            " and tag is null and expires_at > ?",
            (network, int(self._clock.wall())),
        )
        assert row is not None
        return int(row[0])

    def ticket(self, network: NetworkId, tag: bytes) -> bytes:
        """The ticket of a tag, its own or the next free one; empty when there is none."""
        with self._database.durable():
            row = self._find("tag = ?", network, tag)
            if row is None:
                # By prefix: an order that HQ, who signed them in another, does not know.
                row = self._find(
                    "tag is null and expires_at > ? order by prefix",
                    network,
                    int(self._clock.wall()),
                )
                if row is not None:
                    self._database.run("update tickets set tag = ? where number = ?", (tag, row[0]))
        return bytes(Ticket(*row[1:])) if row is not None else b""

    def _find(
        self, where: str, network: NetworkId, value: object
    ) -> tuple[int, bytes, bytes, bytes] | None:
        return self._database.one(
            "select number, key, prefix, signature from tickets"
            f" where network = ? and signature is not null and {where} limit 1",
            (network, value),
        )
