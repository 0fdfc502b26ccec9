"""A change that is asked for twice under one id is made once, whoever repeats it (ADR 0044).

The row `/front/done/<id>` is written before the change is made and gets the answer after it, sealed
to the caller: the store holds no secret that was told. A repeat finds one of these:

| row                                       | a repeat                                            |
|-------------------------------------------|-----------------------------------------------------|
| none                                      | makes the change                                    |
| with an answer                            | gets it                                             |
| ours, and we never began                  | makes it: writing the row failed and happened       |
| under way                                 | waits for the answer, a while                       |
| broke off: a store that failed midway, a  | is told that nobody knows; whoever asked looks, and |
| headquarters that died                    | asks under another id if it is not there            |
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.sealedcall import open_answer, seal_answer
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits.front import (
    FRONT_ANSWER_BYTES_MAX,
    FRONT_DONE_BYTES_MAX,
    FRONT_FORGET_REAL_S,
    FRONT_WAIT_REAL_S,
    FRONT_WINDOW_S,
)
from holdfast.rim.clock import Clock
from holdfast.rim.control.store import ControlStore, Delete, Put, absent, unchanged
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack, unpack
from holdfast.wire.front import FrontAnswer, FrontCall

DONE: Final = "/front/done/"
UNAVAILABLE: Final = 503
_BROKE_OFF: Final = -1
_POLL_REAL_S: Final = 0.2

Do = Callable[[], Awaitable[FrontAnswer]]


class DoneRow(msgspec.Struct, frozen=True):
    """One change. `status` is 0 while it is under way; `answer` is empty when it was too long to be
    kept. `by` are random bytes of the process that began it."""

    digest: bytes
    at: float
    by: bytes
    status: int = 0
    answer: bytes = b""


class Once:
    """The book of one headquarters process, over the store that it shares."""

    def __init__(self, store: ControlStore, clock: Clock, entropy: Entropy) -> None:
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._self = entropy.bytes(16)
        self._begun: dict[bytes, float] = {}
        self._forgot_at = 0.0

    async def answer(self, call: FrontCall, do: Do, *, harmless: bool) -> FrontAnswer:
        """What `do` answers, now or when this call was made before. `harmless`: what is answered
        503 was not done, or may be done twice. Raises PeerFault, OperationFault."""
        await self._forget_sometimes()
        key = DONE + call.id.hex()
        told = (call.method, call.path, call.body, call.authorization, call.reply_key)
        row = DoneRow(hash_bytes(pack(told)), self._clock.wall(), self._self)
        if not (await self._store.txn([absent(key)], [Put(key, pack(row))])).succeeded:
            kv = await self._store.get(key)
            held = _row(kv.value) if kv is not None else None
            if held is None or held.by != self._self or call.id in self._begun:
                return await self._earlier(call, key, row.digest)
            _same(held, row.digest)
        self._begun[call.id] = row.at
        answer = await do()
        if answer.status == UNAVAILABLE:
            row = msgspec.structs.replace(row, status=_BROKE_OFF)
            if harmless:
                del self._begun[call.id]
            await self._store.txn([], [Delete(key) if harmless else Put(key, pack(row))])
            return answer
        kept = self._sealed(answer, call.reply_key)
        row = msgspec.structs.replace(row, status=answer.status, answer=kept)
        await self._store.txn([], [Put(key, pack(row))])
        return answer

    async def _earlier(self, call: FrontCall, key: str, digest: bytes) -> FrontAnswer:
        """The answer that the call had before; waits for one that is under way."""
        waited_s = 0.0
        while waited_s < FRONT_WAIT_REAL_S:
            kv = await self._store.get(key)
            if kv is None:
                raise OperationFault("the call could not be made just now; try again")
            row = _row(kv.value)
            _same(row, digest)
            if row.status == _BROKE_OFF:
                break
            if row.status and not row.answer:
                raise PeerFault("done; its answer was too long to be kept", code="conflict")
            if row.status:
                opened = open_answer(row.answer, call.reply_key)
                return unpack(FrontAnswer, opened, bytes_max=FRONT_ANSWER_BYTES_MAX)
            await self._clock.sleep_real(_POLL_REAL_S)
            waited_s += _POLL_REAL_S
        raise PeerFault(
            "this call was begun and nobody knows whether it was done; look before you repeat it",
            code="conflict",
        )

    def _sealed(self, answer: FrontAnswer, reply_key: bytes) -> bytes:
        """As it is kept: not padded; empty when it is too long."""
        data = pack(answer)
        exact: Sequence[int] = (len(data) + 4,)
        kept = seal_answer(data, reply_key, self._entropy.bytes(32), exact)
        return kept if len(kept) <= FRONT_DONE_BYTES_MAX else b""

    async def _forget_sometimes(self) -> None:
        now = self._clock.elapsed() / self._clock.scale
        if now - self._forgot_at > FRONT_FORGET_REAL_S:
            self._forgot_at = now
            await self.forget()

    async def forget(self) -> None:
        """Forget changes that nobody can repeat any more. Raises OperationFault."""
        oldest = self._clock.wall() - 2 * FRONT_WINDOW_S - FRONT_WAIT_REAL_S
        for kv in (await self._store.range(DONE)).items:
            if _row(kv.value).at < oldest:
                await self._store.txn([unchanged(kv.key, kv)], [Delete(kv.key)])
        self._begun = {id: at for id, at in self._begun.items() if at >= oldest}


def _row(data: bytes) -> DoneRow:
    return unpack(DoneRow, data, bytes_max=2 * FRONT_DONE_BYTES_MAX)


def _same(row: DoneRow, digest: bytes) -> None:
    if row.digest != digest:
        raise PeerFault("another call had this id", code="conflict")
