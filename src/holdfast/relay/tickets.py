"""The tickets a server has taken (D17): which tags may push here, and under which terms.

A tag spends its ticket once, at an opening; what was spent is on the disk before the session is
there, so that neither a crash nor a race spends one ticket for two tags here. After that the tag
stands in a table in memory and no request pays for tickets again. Tags that had blobs here before
this server was first told of tickets go on under the common terms.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from holdfast.crypto.blindrsa import BlindPublicKey
from holdfast.errors import PeerFault
from holdfast.fabric.database import Database
from holdfast.logic.fleet.model import NetworkId, Version
from holdfast.rim.clock import Clock
from holdfast.wire.hq import Terms
from holdfast.wire.tickets import TicketClass, TicketKeys, parse_ticket, ticket_message

SCHEMA: Final = """
create table if not exists spent (
    ticket blob primary key, tag blob not null, expires_at integer not null
) without rowid, strict;
create table if not exists admitted (
    tag blob primary key, kind text not null, group_bytes_max integer not null,
    requests_per_s real not null, requests_burst real not null, at real not null
) without rowid, strict;
create table if not exists since (one integer primary key, at real not null) strict;
"""


class TicketBook:
    """One server's tickets. `admit` may be called from any thread."""

    def __init__(self, path: Path | None, network: NetworkId, clock: Clock) -> None:
        self._database = Database(path, SCHEMA)
        self._network = network
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[bytes, tuple[BlindPublicKey, TicketClass]] = {}
        self._version: Version | None = None
        self._since: float | None = None
        self._terms: dict[bytes, Terms] = {}
        for tag, *terms in self._database.run(
            "select tag, group_bytes_max, requests_per_s, requests_burst from admitted"
        ):
            self._terms[tag] = Terms(*terms)
        self.bytes_max = 0
        """The largest quota that any tag here has been granted, or may be."""
        self._note_quotas(terms.group_bytes_max for terms in self._terms.values())
        row = self._database.one("select at from since")
        if row is not None:
            self._since = row[0]
        now = int(clock.wall())
        self._database.run("delete from spent where expires_at < ?", (now - _KEPT_S,))

    def close(self) -> None:
        """Let the file go."""
        self._database.close()

    @property
    def required(self) -> bool:
        """Whether a new tag needs a ticket: HQ has named keys."""
        return bool(self._keys)

    def _note_quotas(self, quotas: Iterable[int]) -> None:
        self.bytes_max = max((self.bytes_max, *quotas))

    def take_keys(self, keys: TicketKeys) -> bool:
        """Use these keys from now on; the caller verified who says so. Whether they are news.
        Raises PeerFault."""
        if self._version is not None and keys.version <= self._version:
            return False
        keys.check()
        found = [(BlindPublicKey(item.spki), item) for item in keys.classes]
        self._keys = {key.id: (key, item) for key, item in found}
        self._version = keys.version
        self._note_quotas(item.group_bytes_max for item in keys.classes)
        if self._keys and self._since is None:
            self._since = self._clock.wall()
            with self._database.durable():
                self._database.run("insert or ignore into since values (1, ?)", (self._since,))
        return True

    def terms(self, tag: bytes) -> Terms | None:
        """What a tag that spent a ticket here was granted."""
        return self._terms.get(tag)

    def may_push(self, tag: bytes, first_at: float | None) -> bool:
        """Whether a tag whose first blob came at `first_at` (Unix seconds) may push here."""
        if not self._keys or tag in self._terms:
            return True
        return first_at is not None and self._since is not None and first_at < self._since

    def admit(self, tag: bytes, data: bytes) -> Terms:
        """Spend a ticket for a tag; durable when it returns. Spending it again for the same tag
        changes nothing. Raises PeerFault (`ticket`) for one that is no good here."""
        ticket = parse_ticket(data)
        key, item = self._keys.get(ticket.key, (None, None))
        if key is None or item is None:
            raise PeerFault("a ticket under a key that is not in use", code="ticket")
        if item.expires_at <= self._clock.wall():
            raise PeerFault("a ticket that has expired; draw another", code="ticket")
        if not key.verify(ticket_message(ticket.prefix, self._network), ticket.signature):
            raise PeerFault("a ticket that headquarters did not sign", code="ticket")
        terms = Terms(item.group_bytes_max, item.requests_per_s, item.requests_burst)
        with self._lock:
            if tag in self._terms:
                return self._terms[tag]
            with self._database.durable():
                row = self._database.one("select tag from spent where ticket = ?", (ticket.id,))
                if row is not None and row[0] != tag:
                    raise PeerFault("this ticket was spent for another tag", code="ticket")
                self._database.run(
                    "insert or ignore into spent values (?, ?, ?)",
                    (ticket.id, tag, item.expires_at),
                )
                self._database.run(
                    "insert or ignore into admitted values (?, ?, ?, ?, ?, ?)",
                    (
                        tag,
                        item.name,
                        terms.group_bytes_max,
                        terms.requests_per_s,
                        terms.requests_burst,
                        self._clock.wall(),
                    ),
                )
            self._terms[tag] = terms
        return terms


_KEPT_S: Final = 7 * 86_400
"""Spent tickets are kept this long past their key's end: clocks differ."""
