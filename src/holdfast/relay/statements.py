"""What HQ says to everybody, as this server carries it to clients: revocations and witnesses.

A server verifies what it staples, so that it is not blamed for what it passes on; clients verify
it again.
"""

from __future__ import annotations

from holdfast.errors import PeerFault
from holdfast.logic.fleet.model import Version
from holdfast.logic.trust.revocation import RevocationList, Revocations
from holdfast.logic.trust.witnesses import WitnessSet
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple


class Statements:
    """The newest revocation list and witness set, as HQ signed them."""

    def __init__(self, roots: tuple[bytes, ...], revocations: RevocationList) -> None:
        self._roots = roots
        self._list = revocations
        self._revocations: tuple[Version, Staple] | None = None
        self._witnesses: tuple[Version, Staple] | None = None

    def take_revocations(self, staple: Staple, now: float) -> None:
        """Fold a list into the server's own, and carry it if it is newer. Raises PeerFault."""
        news = verify_staple(
            self._roots, staple, Type.REVOCATIONS, Revocations, now, revocations=self._list
        )
        if news.network != self._list.network:
            raise PeerFault("the revocations of another network")
        self._list.fold(news)
        if self._revocations is None or news.version >= self._revocations[0]:
            self._revocations = news.version, staple

    def take_witnesses(self, staple: Staple, now: float) -> None:
        """Carry a witness set if it is newer, or newly logged. Raises PeerFault."""
        news = verify_staple(
            self._roots, staple, Type.WITNESSES, WitnessSet, now, revocations=self._list
        )
        if self._witnesses is None or news.version >= self._witnesses[0]:
            self._witnesses = news.version, staple

    def revocations_after(self, known: Version | None) -> Staple | None:
        """The list, for somebody who has the one of version `known`."""
        return _newer(self._revocations, known)

    def witnesses_after(self, known: Version | None) -> Staple | None:
        """The set, for somebody who has the one of version `known`."""
        return _newer(self._witnesses, known)


def _newer(held: tuple[Version, Staple] | None, known: Version | None) -> Staple | None:
    if held is None or (known is not None and known >= held[0]):
        return None
    return held[1]
