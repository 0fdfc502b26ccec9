"""A caller of headquarters by way of any node: sealed, tried at one node after another (ADR 0044).

The caller knows addresses of nodes and the fingerprint of the network's root, nothing else. A node
is nobody in particular: its TLS keeps out those on the path and proves nothing. What it hands out
(front keys, a copy of the store) is believed for headquarters' signature, and what it is asked to
carry opens at headquarters alone. One call has one id through all tries, so it is done once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from holdfast.crypto.certificates import fingerprint
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.rootset import only_roots, trusted_roots
from holdfast.crypto.sealedcall import open_answer, seal_request
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits import API_REPLY_BYTES_MAX
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.limits.front import (
    FRONT_ANSWER_BYTES_MAX,
    FRONT_CALL_REAL_S,
    FRONT_COPY_REAL_S,
    FRONT_KEY_S,
    FRONT_LIST_S,
    FRONT_PATIENCE_REAL_S,
    FRONT_REQUEST_CLASSES,
    FRONT_WINDOW_S,
    FRONT_WITNESS_REAL_S,
)
from holdfast.logic.trust.revocation import RevocationList, Revocations, Revoked, is_stale
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.https_client import JsonClient, error_of
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack, unpack, unpack_json
from holdfast.wire.front import (
    ASK,
    CALL_ID_BYTES,
    COPY,
    COPY_HEAD,
    KEYS,
    MOVED,
    NO_HEADQUARTERS,
    CopyHead,
    FrontAnswer,
    FrontCall,
    FrontKey,
    FrontKeys,
    StoreCopy,
    age_order,
    front_path,
)
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type
from holdfast.wire.staple import presented, verify_staple

SCHEME: Final = "front://"
_UNAVAILABLE: Final = 503
_ROUND_REAL_S: Final = 0.5
_WITNESSES: Final = 3
"""Nodes asked for their revocation list, where there are as many."""
_COPY_TRIES: Final = 3
_NONE: Final = f'"{NO_HEADQUARTERS}"'.encode()
_FRAME_BYTES: Final = 4 * SIGNED_BYTES_MAX


class Where(NamedTuple):
    """`front://HOST:PORT[,HOST:PORT...]#FINGERPRINT`."""

    addresses: tuple[str, ...]
    fingerprint: bytes

    def __str__(self) -> str:
        return f"{SCHEME}{','.join(self.addresses)}#{self.fingerprint.hex()}"


def parse_where(text: str) -> Where:
    """Raises UsageError."""
    rest, _, pin = text.strip().removeprefix(SCHEME).partition("#")
    addresses = tuple(address for address in rest.split(",") if address)
    try:
        for address in addresses:
            split_address(address)
        pinned = bytes.fromhex(pin)
    except (PeerFault, ValueError) as error:
        raise UsageError(f"{text!r}: {error}") from error
    if not addresses or len(pinned) != 32 or not text.strip().startswith(SCHEME):
        raise UsageError(
            "write front://HOST:PORT,HOST:PORT#FINGERPRINT, the 64 hex digits of the root's; "
            "holdfast hq front prints it"
        )
    return Where(addresses, pinned)


class NoHeadquarters(OperationFault):
    """A node says plainly that no headquarters answers it."""


class NodeSilent(OperationFault):
    """A node cannot be reached: of headquarters that says nothing."""


class FrontClient:
    """Calls headquarters through whichever of the nodes at `where` serves."""

    def __init__(self, where: Where, clock: Clock, entropy: Entropy) -> None:
        self._where = where
        self._clock = clock
        self._entropy = entropy
        self._path = front_path(where.fingerprint)
        self._nodes = {at: JsonClient.unverified([at], clock) for at in where.addresses}
        self._order = list(where.addresses)
        self._keys: tuple[bytes, ...] = ()
        self._revoked: RevocationList | None = None
        """Grows with every node that is asked."""

    async def close(self) -> None:
        """End idle connections."""
        for node in self._nodes.values():
            await node.close()

    # --- Calls -----------------------------------------------------------------------------------
    async def exchange(
        self,
        method: str,
        path: str,
        body: bytes,
        authorization: str,
        *,
        patience_s: float = FRONT_PATIENCE_REAL_S,
        call_id: bytes = b"",
    ) -> tuple[int, bytes]:
        """Status and body of headquarters' own answer; done once, however often it is tried.

        Nodes are tried in turn, again and again for `patience_s` real seconds. Raises
        OperationFault when no headquarters answers through any of them, PeerFault when none of them
        is a front of this network.
        """
        call = self._call(method, path, body, authorization, call_id)
        last: HoldfastError = OperationFault("no node was asked")
        until = self._clock.elapsed() + patience_s * self._clock.scale
        while True:
            hope = False
            for address in list(self._order):
                try:
                    answer = await self._through(address, call)
                except PeerFault as fault:
                    last = last if hope else fault
                    continue
                except OperationFault as fault:
                    last, hope = fault, hope or fault.retryable
                    continue
                self._order.remove(address)
                self._order.insert(0, address)
                return answer.status, answer.body
            if not hope or self._clock.elapsed() >= until:
                raise last
            await self._clock.sleep_real(_ROUND_REAL_S * self._entropy.uniform(0.5, 1.5))

    def _call(
        self, method: str, path: str, body: bytes, authorization: str, call_id: bytes = b""
    ) -> FrontCall:
        return FrontCall(
            id=call_id or self._entropy.bytes(CALL_ID_BYTES),
            method=method,
            path=path,
            body=body,
            authorization=authorization,
            reply_key=self._entropy.bytes(32),
            sent_at=self._clock.wall(),
        )

    async def _through(self, address: str, call: FrontCall) -> FrontAnswer:
        """The answer by way of one node. Raises OperationFault and PeerFault."""
        answer = await self._carried(address, call)
        if answer.status == _UNAVAILABLE:
            raise error_of(answer.status, answer.body)
        return answer

    async def _carried(self, address: str, call: FrontCall) -> FrontAnswer:
        """Whatever a headquarters says. Raises OperationFault and PeerFault."""
        keys = self._keys = self._keys or await self.known(address)
        content_key = self._entropy.bytes(32)
        sealed = seal_request(pack(call), keys, content_key, FRONT_REQUEST_CLASSES)
        status, data = await self._exchange(
            address, "POST", ASK, sealed, FRONT_CALL_REAL_S, FRONT_ANSWER_BYTES_MAX
        )
        try:
            opened = open_answer(data, call.reply_key)
            return unpack(FrontAnswer, opened, bytes_max=FRONT_ANSWER_BYTES_MAX)
        except PeerFault as fault:
            self._keys = ()  # they may have turned; ask for them again
            raise (_error_of(status, data) if status != 200 else fault) from fault

    async def lives(self, patience_s: float) -> bool:
        """Whether a headquarters answers through any node, asked for `patience_s` real seconds.

        False only when at the end a node says that it reaches none and no node says anything else.
        Raises OperationFault when no node speaks, PeerFault when one says what cannot be judged.
        """
        until = self._clock.elapsed() + patience_s * self._clock.scale
        while True:
            call = self._call("GET", "/v1/about", b"", "")
            asked = [self._carried(address, call) for address in self._order]
            words = await asyncio.gather(*asked, return_exceptions=True)
            if any(isinstance(word, FrontAnswer) for word in words):
                return True
            if self._clock.elapsed() >= until:
                return _judged(words)
            await self._clock.sleep_real(_ROUND_REAL_S * self._entropy.uniform(0.5, 1.5))

    async def hear(self) -> None:
        """Unite the revocation lists of all nodes that show one; those of others are missed."""
        asked = [self._told(address, FRONT_CALL_REAL_S) for address in self._order]
        for told in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(told, FrontKeys):
                with contextlib.suppress(PeerFault):
                    self._fold(told)

    async def known(self, address: str) -> tuple[bytes, ...]:
        """Front keys of the headquarters that one node tells of, by the revocation lists of a few.
        Raises OperationFault, PeerFault."""
        others = [other for other in self._order if other != address][: _WITNESSES - 1]
        asked = [self._told(other, FRONT_WITNESS_REAL_S) for other in others]
        told, *more = await asyncio.gather(
            self._told(address, FRONT_CALL_REAL_S), *asked, return_exceptions=True
        )
        for word in (*more, told):
            if isinstance(word, FrontKeys):
                with contextlib.suppress(PeerFault):  # of a witness; of the node it is raised below
                    self._fold(word)
            elif not isinstance(word, HoldfastError):
                raise word
        if not isinstance(told, FrontKeys):
            raise told
        roots, issued_at = self._fold(told)
        now = self._clock.wall()
        keys = [
            key.public
            for key in self._living(roots, told)
            if now < key.expires_at <= now + FRONT_KEY_S + FRONT_WINDOW_S
        ]
        if not keys:
            raise NoHeadquarters(f"{address} knows no headquarters of today")
        if is_stale(issued_at, now, FRONT_LIST_S):
            raise OperationFault(f"{address} shows an old revocation list beside keys of today")
        return tuple(keys)

    def _living(self, roots: tuple[bytes, ...], told: FrontKeys) -> Iterator[FrontKey]:
        """Without those of one whose certificate ended, or who is out."""
        now, revoked = self._clock.wall(), self._revoked
        for staple in told.keys:
            with contextlib.suppress(PeerFault):
                yield verify_staple(
                    roots, staple, Type.FRONT_KEY, FrontKey, now, revocations=revoked
                )

    async def _told(self, address: str, timeout_s: float) -> FrontKeys:
        status, data = await self._exchange(
            address, "GET", KEYS, b"", timeout_s, API_REPLY_BYTES_MAX
        )
        if status != 200:
            raise _no_front(address, status, data)
        return unpack_json(FrontKeys, data, bytes_max=API_REPLY_BYTES_MAX)

    def _fold(self, told: FrontKeys) -> tuple[tuple[bytes, ...], int]:
        """Unite with the list in it, for as long as this client lives: what one node keeps back
        another one tells. The roots, and when the list was signed. Raises PeerFault."""
        roots, now = self._pinned(told.roots), self._clock.wall()
        listed = verify_staple(
            roots, told.revocations, Type.REVOCATIONS, Revocations, now, revocations=self._revoked
        )
        if self._revoked is None:
            self._revoked = RevocationList(listed.network)
        if listed.network != self._revoked.network:
            raise PeerFault("a revocation list of another network", code="network")
        self._revoked.fold(listed)
        return roots, listed.issued_at

    @property
    def revoked(self) -> tuple[Revoked, ...]:
        """Everything that is out by the lists of the nodes asked so far."""
        return self._revoked.snapshot_entries() if self._revoked is not None else ()

    async def _exchange(
        self, address: str, method: str, what: str, body: bytes, timeout_s: float, bytes_max: int
    ) -> tuple[int, bytes]:
        """Raises NodeSilent, PeerFault."""
        node, path = self._nodes[address], self._path + what
        try:
            return await node.exchange(method, path, body, timeout_s=timeout_s, bytes_max=bytes_max)
        except OperationFault as fault:
            raise NodeSilent(str(fault), retryable=fault.retryable) from fault

    def _pinned(self, told: tuple[bytes, ...]) -> tuple[bytes, ...]:
        pinned = [root for root in only_roots(told) if fingerprint(root) == self._where.fingerprint]
        if not pinned:
            raise PeerFault("no root has the fingerprint you know", code="certificate")
        return trusted_roots(pinned, told, self._clock.wall())

    # --- Copies ----------------------------------------------------------------------------------
    async def newest_copy(self) -> tuple[CopyHead, bytes]:
        """The newest sealed copy, or where it cannot be fetched an older one: to be looked at.
        Raises as `newest` does."""
        head, copy = await self.newest(older=True)
        return head, copy.sealed

    async def newest(self, *, older: bool = False) -> tuple[CopyHead, StoreCopy]:
        """The newest sealed copy of the store that any of the nodes keeps, with what headquarters
        says of it. All are asked: one that shows an old copy wins only where no other answers.

        An older one than the newest that was shown is given only with `older`. Raises
        OperationFault when no node has one, PeerFault when none is to be believed.
        """
        asked = await asyncio.gather(
            *(self._head(address) for address in self._order), return_exceptions=True
        )
        found: list[tuple[CopyHead, str]] = []
        last: HoldfastError = OperationFault("no node was asked")
        for address, word in zip(list(self._order), asked, strict=True):
            if isinstance(word, HoldfastError):
                last = word
            elif isinstance(word, BaseException):
                raise word
            elif self._is_out(word[1]):  # by the list of a node that answered later
                last = PeerFault(f"{address} keeps the copy of a revoked headquarters")
            else:
                found.append((word[0], address))
        if not found:
            raise last
        found.sort(key=lambda item: age_order(item[0]), reverse=True)
        newest = [item for item in found if age_order(item[0]) == age_order(found[0][0])]
        for attempt in range(_COPY_TRIES):
            if attempt:
                await self._clock.sleep_real(_ROUND_REAL_S * self._entropy.uniform(1.0, 3.0))
            for head, address in newest:
                try:
                    return head, await self._copy(address, head)
                except (OperationFault, PeerFault) as fault:
                    last = fault
        if older:
            for head, address in found[len(newest) :]:
                try:
                    return head, await self._copy(address, head)
                except (OperationFault, PeerFault) as fault:
                    last = fault
        raise OperationFault(
            f"the newest copy, of revision {found[0][0].revision}, cannot be fetched: {last}; "
            "try again, or take an older one where you must (--older)"
        ) from last

    async def tell(self, notice: Staple) -> int:
        """Show every node where headquarters says that it is; how many follow it now."""
        data = pack(notice)
        asked = [
            node.exchange("POST", self._path + MOVED, data, timeout_s=FRONT_CALL_REAL_S)
            for node in self._nodes.values()
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return sum(isinstance(answer, tuple) and answer[0] == 204 for answer in answers)

    async def _head(self, address: str) -> tuple[CopyHead, Staple]:
        status, data = await self._exchange(
            address, "GET", COPY_HEAD, b"", FRONT_CALL_REAL_S, API_REPLY_BYTES_MAX
        )
        if status != 200:
            raise _no_front(address, status, data)
        staple = unpack(Staple, data, bytes_max=_FRAME_BYTES)
        return await self._believe(address, staple), staple

    async def _copy(self, address: str, head: CopyHead) -> StoreCopy:
        bytes_max = SNAPSHOT_BYTES_MAX + _FRAME_BYTES
        status, data = await self._exchange(address, "GET", COPY, b"", FRONT_COPY_REAL_S, bytes_max)
        if status != 200:
            raise _no_front(address, status, data)
        copy = unpack(StoreCopy, data, bytes_max=bytes_max)
        told = await self._believe(address, copy.head)
        if hash_bytes(copy.sealed) != told.digest or age_order(told) < age_order(head):
            raise PeerFault(f"{address} keeps a damaged copy", code="damaged")
        return copy

    async def _believe(self, address: str, staple: Staple) -> CopyHead:
        """Raises PeerFault unless a headquarters of this network signed it, one that no revocation
        list seen so far excludes."""
        roots, _ = self._fold(await self._told(address, FRONT_CALL_REAL_S))
        now, revoked = self._clock.wall(), self._revoked
        return verify_staple(roots, staple, Type.STORE_COPY, CopyHead, now, revocations=revoked)

    def _is_out(self, staple: Staple) -> bool:
        return self._revoked is not None and bool(self._revoked.find(presented(staple.proof)))


def _judged(words: Sequence[FrontAnswer | BaseException]) -> bool:
    """False, or what forbids to say so."""
    unclear = [word for word in words if not isinstance(word, NoHeadquarters | NodeSilent)]
    for word in unclear:
        assert isinstance(word, BaseException), "an answer was judged before"
        raise word
    if not any(isinstance(word, NoHeadquarters) for word in words):
        raise OperationFault("no node answers; name others that live")
    return False


def _no_front(address: str, status: int, data: bytes) -> HoldfastError:
    if status == 404:
        return PeerFault(f"{address} is no front of this network", code="not-found")
    return error_of(status, data)


def _error_of(status: int, data: bytes) -> HoldfastError:
    """What a node says itself of a call that it was to carry."""
    fault = error_of(status, data)
    if status == _UNAVAILABLE and _NONE in data:
        return NoHeadquarters(str(fault))
    return fault


def bearer(key: str) -> str:
    """The authorization of an operator; empty for nobody."""
    return f"Bearer {key}" if key else ""
