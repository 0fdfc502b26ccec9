"""The operator's verb about fronts: where they are, and headquarters' word where it is itself.

| method and path          | shape         |
|--------------------------|---------------|
| GET /admin/v1/front      | -> FrontView  |
"""

from __future__ import annotations

from typing import Any

from holdfast.crypto.certificates import fingerprint
from holdfast.crypto.rootset import only_roots
from holdfast.hq.parts import Parts
from holdfast.hq.restored import last_restore
from holdfast.hq.verbs import READERS, Asked, Verb
from holdfast.limits.front import HQ_ADDRESSES_TOLD_MAX
from holdfast.logic.access.model import Core, Entry
from holdfast.wire.codec import Message
from holdfast.wire.front import HqAddresses
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type


class FrontView(Message):
    """`addresses` of every entry and core, `host:port`; `root` is the fingerprint that callers pin,
    hex; `holders` is how many nodes hold the newest copy of the store. `notice` is the statement by
    which nodes of a lost headquarters find this one."""

    addresses: tuple[str, ...]
    root: str
    holders: int
    notice: Staple


class FrontVerbs:
    """The handler."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def verbs(self) -> tuple[Verb, ...]:
        """The row of this verb."""
        return (Verb("GET", "/front", READERS, self.front),)

    async def front(self, _asked: Asked, _body: Any) -> FrontView:
        parts = self._parts
        book, authority = parts.access.book, parts.authority
        nodes: list[Entry | Core] = []
        for cell in sorted(book.cells):
            nodes += [*book.core_nodes(cell), *book.entries(cell)]
        restored = await last_restore(parts.store)
        notice = HqAddresses(
            network=authority.network,
            addresses=parts.api_addresses[:HQ_ADDRESSES_TOLD_MAX],
            epoch=restored.epoch,
            issued_at=int(parts.clock.wall()),
        )
        return FrontView(
            addresses=tuple(address for node in nodes for address in node.addresses[:1]),
            root=fingerprint(only_roots(authority.roots)[0]).hex(),
            holders=parts.copies.holders,
            notice=authority.sign(Type.HQ_ADDRESSES, notice),
        )
