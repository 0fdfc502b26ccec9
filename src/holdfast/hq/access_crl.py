"""X.509 revocation lists for the proxies of entries and cores (D6).

Proxies know serials and nothing else, and believe a list only from the issuer of a certificate. So
each HQ process keeps the list of its own intermediate in the control store: every certificate it
issued that our signed list excludes, by node, serial or key. The list outlives its HQ; whole nodes
that are excluded later are left out of the orders by name, which needs no list at all.
"""

from __future__ import annotations

import msgspec

from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.pure import sha256
from holdfast.hq.authority import Authority
from holdfast.hq.join import CERTIFICATES
from holdfast.logic.access.rows import CRLS
from holdfast.logic.fleet.rows import CertificateRow
from holdfast.logic.trust.revocation import Presented, RevocationList
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Put


class CrlKeeper:
    """Writes our list at the start and after every exclusion."""

    def __init__(self, store: ControlStore, authority: Authority, clock: Clock) -> None:
        self._store = store
        self._authority = authority
        self._clock = clock
        self._serials: frozenset[int] | None = None

    async def refresh(self, entries: RevocationList) -> None:
        """Write the list, when it says something new. Raises OperationFault."""
        serials = frozenset(await self._excluded(entries))
        if serials == self._serials:
            return
        key = CRLS + sha256(self._authority.intermediate).hex()[:32]
        pem = self._authority.crl(serials)
        await self._store.txn([], [Put(key, msgspec.msgpack.encode(pem))])
        self._serials = serials

    async def _excluded(self, entries: RevocationList) -> list[int]:
        now, ours = self._clock.wall(), self._authority.intermediate
        reply = await self._store.range(CERTIFICATES)
        found = []
        for kv in reply.items:
            row = msgspec.msgpack.decode(kv.value, type=CertificateRow)
            if row.issuer != ours or row.expires_at < now:
                continue
            shown = Presented(row.node, row.serial, cert_info(row.der).key_hash)
            if entries.find(shown) is not None:
                found.append(int(row.serial))
        return found
