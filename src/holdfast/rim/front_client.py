"""A caller of headquarters by way of any node: sealed, tried at one node after another (ADR 0044).

The caller knows addresses of nodes and the fingerprint of the network's root, nothing else. A node
is nobody in particular: its TLS keeps out those on the path and proves nothing. What it hands out
(front keys, a copy of the store) is believed for headquarters' signature, and what it is asked to
carry opens at headquarters alone. One call has one id through all tries, so it is done once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
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
    FRONT_PATIENCE_REAL_S,
    FRONT_REQUEST_CLASSES,
)
from holdfast.logic.trust.revocation import RevocationList
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
    CopyHead,
    FrontAnswer,
    FrontCall,
    FrontKey,
    FrontKeys,
    StoreCopy,
    age_order,
    front_path,
)
from holdfast.wire.records import Revocations, Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX, Type
from holdfast.wire.staple import verify_staple

SCHEME: Final = "front://"
_UNAVAILABLE: Final = 503
_ROUND_REAL_S: Final = 0.5
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


class Known(NamedTuple):
    """What one node told and the root confirms."""

    roots: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    """Public front keys, one of each headquarters."""
    revocations: RevocationList


class FrontClient:
    """Calls headquarters through whichever of the nodes at `where` serves."""

    def __init__(self, where: Where, clock: Clock, entropy: Entropy) -> None:
        self._where = where
        self._clock = clock
        self._entropy = entropy
        self._path = front_path(where.fingerprint)
        self._nodes = {at: JsonClient.unverified([at], clock) for at in where.addresses}
        self._order = list(where.addresses)
        self._known: Known | None = None

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
        call = FrontCall(
            id=call_id or self._entropy.bytes(CALL_ID_BYTES),
            method=method,
            path=path,
            body=body,
            authorization=authorization,
            reply_key=self._entropy.bytes(32),
            sent_at=self._clock.wall(),
        )
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

    async def _through(self, address: str, call: FrontCall) -> FrontAnswer:
        """The answer by way of one node. Raises OperationFault and PeerFault."""
        known = self._known = self._known or await self.known(address)
        content_key = self._entropy.bytes(32)
        sealed = seal_request(pack(call), known.keys, content_key, FRONT_REQUEST_CLASSES)
        status, data = await self._nodes[address].exchange(
            "POST",
            self._path + ASK,
            sealed,
            timeout_s=FRONT_CALL_REAL_S,
            bytes_max=FRONT_ANSWER_BYTES_MAX,
        )
        try:
            opened = open_answer(data, call.reply_key)
            answer = unpack(FrontAnswer, opened, bytes_max=FRONT_ANSWER_BYTES_MAX)
        except PeerFault as fault:
            self._known = None  # keys may have turned; ask for them again
            raise (error_of(status, data) if status != 200 else fault) from fault
        if answer.status == _UNAVAILABLE:
            raise error_of(answer.status, answer.body)
        return answer

    async def known(self, address: str) -> Known:
        """What one node tells of headquarters. Raises OperationFault, PeerFault."""
        status, data = await self._nodes[address].exchange(
            "GET", self._path + KEYS, b"", timeout_s=FRONT_CALL_REAL_S
        )
        if status != 200:
            raise _no_front(address, status, data)
        told = unpack_json(FrontKeys, data, bytes_max=API_REPLY_BYTES_MAX)
        now = self._clock.wall()
        roots = self._pinned(told.roots)
        revocations = _listed(roots, told.revocations, now)
        keys = []
        for staple in told.keys:
            try:
                key = verify_staple(
                    roots, staple, Type.FRONT_KEY, FrontKey, now, revocations=revocations
                )
            except PeerFault:
                continue  # of one whose certificate ended, or who is out
            if key.expires_at > now:
                keys.append(key.public)
        if not keys:
            raise OperationFault(f"{address} knows no headquarters of today")
        return Known(roots, tuple(keys), revocations)

    def _pinned(self, told: tuple[bytes, ...]) -> tuple[bytes, ...]:
        pinned = [root for root in only_roots(told) if fingerprint(root) == self._where.fingerprint]
        if not pinned:
            raise PeerFault("no root has the fingerprint you know", code="certificate")
        return trusted_roots(pinned, told, self._clock.wall())

    # --- Copies ----------------------------------------------------------------------------------
    async def newest_copy(self) -> tuple[CopyHead, bytes]:
        """The newest sealed copy of the store that any of the nodes keeps, with what headquarters
        says of it. All are asked: one that shows an old copy wins only where no other answers.

        Raises OperationFault when no node has one, PeerFault when none is to be believed.
        """
        asked = await asyncio.gather(
            *(self._head(address) for address in self._order), return_exceptions=True
        )
        found: list[tuple[CopyHead, str]] = []
        last: HoldfastError = OperationFault("no node was asked")
        for address, head in zip(list(self._order), asked, strict=True):
            if isinstance(head, CopyHead):
                found.append((head, address))
            elif isinstance(head, HoldfastError):
                last = head
            else:
                raise head
        newest_first = sorted(found, key=lambda item: age_order(item[0]), reverse=True)
        for head, address in newest_first:
            try:
                return head, await self._copy(address, head)
            except (OperationFault, PeerFault) as fault:
                last = fault
        raise last

    async def tell(self, notice: Staple) -> int:
        """Show every node where headquarters says that it is; how many follow it now."""
        data = pack(notice)
        asked = [
            node.exchange("POST", self._path + MOVED, data, timeout_s=FRONT_CALL_REAL_S)
            for node in self._nodes.values()
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return sum(isinstance(answer, tuple) and answer[0] == 204 for answer in answers)

    async def _head(self, address: str) -> CopyHead:
        status, data = await self._nodes[address].exchange(
            "GET", self._path + COPY_HEAD, b"", timeout_s=FRONT_CALL_REAL_S
        )
        if status != 200:
            raise _no_front(address, status, data)
        return await self._believe(address, unpack(Staple, data, bytes_max=_FRAME_BYTES))

    async def _copy(self, address: str, head: CopyHead) -> bytes:
        bytes_max = SNAPSHOT_BYTES_MAX + _FRAME_BYTES
        status, data = await self._nodes[address].exchange(
            "GET", self._path + COPY, b"", timeout_s=FRONT_COPY_REAL_S, bytes_max=bytes_max
        )
        if status != 200:
            raise _no_front(address, status, data)
        copy = unpack(StoreCopy, data, bytes_max=bytes_max)
        told = await self._believe(address, copy.head)
        if hash_bytes(copy.sealed) != told.digest or age_order(told) < age_order(head):
            raise PeerFault(f"{address} keeps a damaged copy", code="damaged")
        return copy.sealed

    async def _believe(self, address: str, staple: Staple) -> CopyHead:
        """Raises PeerFault unless a headquarters of this network signed it, one that the revocation
        list does not exclude."""
        status, data = await self._nodes[address].exchange(
            "GET", self._path + KEYS, b"", timeout_s=FRONT_CALL_REAL_S
        )
        if status != 200:
            raise _no_front(address, status, data)
        told = unpack_json(FrontKeys, data, bytes_max=API_REPLY_BYTES_MAX)
        roots, now = self._pinned(told.roots), self._clock.wall()
        return verify_staple(
            roots,
            staple,
            Type.STORE_COPY,
            CopyHead,
            now,
            revocations=_listed(roots, told.revocations, now),
        )


def _listed(roots: tuple[bytes, ...], staple: Staple, now: float) -> RevocationList:
    """Who is out, by a list that some headquarters signed."""
    listed = verify_staple(roots, staple, Type.REVOCATIONS, Revocations, now)
    revocations = RevocationList(listed.network)
    revocations.fold(listed)
    return revocations


def _no_front(address: str, status: int, data: bytes) -> HoldfastError:
    if status == 404:
        return PeerFault(f"{address} is no front of this network", code="not-found")
    return error_of(status, data)


def bearer(key: str) -> str:
    """The authorization of an operator; empty for nobody."""
    return f"Bearer {key}" if key else ""


def addresses_of(texts: Sequence[str]) -> tuple[str, ...]:
    """`host:port`s given one by one or comma-separated."""
    return tuple(address for text in texts for address in text.split(",") if address)
