"""The lies: one class each, as a hostile operator of a relay or replica would tell them.

The list is that of the seeds and of the attacks that were published against encrypted clouds:
withholding, rolling back, forking, reordering, replaying, mixing groups, false numbers and health,
acknowledging and dropping, tampered, truncated and swapped bodies, denial, forged and conflicting
receipts, and keeping silent where a signature is due.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.errors import PeerFault
from holdfast.logic.trust import merkle
from holdfast.rim.store.port import Entry
from holdfast.sim.drills.lying import Liar, Shown, paired, unpaired
from holdfast.wire.codec import Message
from holdfast.wire.envelope import sign
from holdfast.wire.faults import Refusal
from holdfast.wire.pool import (
    AttestReply,
    BlobClass,
    GetReply,
    GetRequest,
    HaveReply,
    HaveRequest,
    Item,
    ListReply,
    OpenReply,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    ReceiptBatch,
)
from holdfast.wire.receipts import receipt_leaf
from holdfast.wire.signed import Type, decode_body

M = TypeVar("M", bound=msgspec.Struct)
Said = tuple[Message, Sequence[bytes]]
FAR: Final = 1_000


class Hiding(Liar):
    """Hides `hidden` from whoever asks; subclasses say how far."""

    attests = False
    """Whether it signs that it has what it hides."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.hidden: set[bytes] = set()
        self.head: int | None = None

    def hides(self, session: bytes) -> bool:
        """Whether from this session."""
        return bool(self.hidden)

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        if not self.hides(request.session):
            return reply, bodies
        shown = [pair for pair in paired(reply, bodies) if pair[0].blob not in self.hidden]
        self.told += len(shown) < len(reply.items)
        return unpaired(shown, self.number(reply.head), more=reply.more and bool(shown))

    def number(self, head: int) -> int:
        """The head it names instead."""
        return head if self.head is None else min(head, self.head)

    def on_list(self, request: Any, reply: ListReply, bodies: list[bytes]) -> Said:
        if not self.hides(request.session):
            return reply, bodies
        pairs = [
            (item, born)
            for item, born in zip(reply.items, reply.born, strict=True)
            if item.blob not in self.hidden
        ]
        return ListReply(tuple(i for i, _ in pairs), tuple(b for _, b in pairs), reply.more), bodies

    def on_get(self, request: GetRequest, reply: GetReply, bodies: list[bytes]) -> Said:
        if not self.hides(request.session):
            return reply, bodies
        rest = iter(bodies)
        found = [next(rest) if size >= 0 else None for size in reply.sizes]
        kept = [
            None if blob in self.hidden else body
            for blob, body in zip(request.blobs, found, strict=False)
        ]
        self.told += kept != found
        sizes = tuple(-1 if body is None else len(body) for body in kept)
        return GetReply(sizes), [body for body in kept if body is not None]

    def on_have(self, request: HaveRequest, reply: HaveReply, bodies: list[bytes]) -> Said:
        if not self.hides(request.session) or self.attests:
            return reply, bodies
        pairs = zip(request.blobs, reply.present, strict=True)
        present = bytes(flag and blob not in self.hidden for blob, flag in pairs)
        self.told += present != reply.present
        return HaveReply(present), bodies

    def on_attest(self, request: Any, reply: AttestReply, bodies: list[bytes]) -> Said:
        if not self.hides(request.session) or self.attests:
            return reply, bodies
        present = bytes(blob not in self.hidden for blob in request.blobs)
        self.told += 1
        head = self.number(self.desk.store.head(self.slot, self.tag))
        return self.resigned(reply, present=present, head=head), bodies


class Withholds(Hiding):
    """Does not list a log blob that it signed for, and says that it has it."""

    attests = True

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        if request.blob_class is BlobClass.LOG and not self.hidden:
            self.hidden.add(self.dice.choice(reply.receipts).blob)
        return reply, bodies

    def on_get(self, request: GetRequest, reply: GetReply, bodies: list[bytes]) -> Said:
        return reply, bodies


class Drops(Hiding):
    """Signs for a blob and drops it."""

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        if not self.hidden or self.dice.random() < 0.5:
            self.hidden.add(self.dice.choice(reply.receipts).blob)
        return reply, bodies


class DropsAndAttests(Drops):
    """Signs for a blob, drops it, and goes on signing that it has it."""

    attests = True

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        if request.blob_class is BlobClass.LOG:
            self.hidden.update(receipt.blob for receipt in reply.receipts)
        return reply, bodies


class Denies(Drops):
    """Lists a blob, and says that it lacks it when asked for it."""

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        return reply, bodies

    def on_list(self, request: Any, reply: ListReply, bodies: list[bytes]) -> Said:
        return reply, bodies


class RollsBack(Hiding):
    """Behaves as its store was before the lying began, or a little earlier."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.head = max(1, self.base - self.dice.randrange(2))

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        self.hidden.update(r.blob for r in reply.receipts if r.sequence > (self.head or 0))
        return reply, bodies

    def on_open(self, request: Any, reply: OpenReply, bodies: list[bytes]) -> Said:
        self.told += 1
        return _replace(reply, head=self.number(reply.head)), bodies

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        head = self.head or 0
        shown = [pair for pair in paired(reply, bodies) if pair[0].sequence <= head]
        self.told += 1
        return unpaired(shown, self.number(reply.head), more=False)

    def hides(self, session: bytes) -> bool:
        return True


class Forks(Hiding):
    """Shows the second device a history without a blob, with the numbers closed up."""

    gap = 0

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        if request.blob_class is BlobClass.LOG and not self.hidden:
            receipt = self.dice.choice(reply.receipts)
            self.hidden.add(receipt.blob)
            self.gap = receipt.sequence
        return reply, bodies

    def hides(self, session: bytes) -> bool:
        return bool(self.hidden) and session in self.second

    def number(self, head: int) -> int:
        return head - 1 if head >= self.gap else head

    def ask_pull(self, request: PullRequest) -> PullRequest:
        if self.hides(request.session) and request.after >= self.gap:
            return _replace(request, after=request.after + 1)
        return request

    def on_open(self, request: Any, reply: OpenReply, bodies: list[bytes]) -> Said:
        if not self.hides(reply.session):
            return reply, bodies
        return _replace(reply, head=self.number(reply.head)), bodies

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        said, rest = super().on_pull(request, reply, bodies)
        if not self.hides(request.session) or not isinstance(said, PullReply):
            return said, rest
        items = tuple(_replace(item, sequence=self.number(item.sequence)) for item in said.items)
        return _replace(said, items=items), rest


class Loses(Hiding):
    """Comes back with a new store and without everything it had."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.incarnation = self.dice.randbytes(16)
        self.desk.sessions.drop(lambda caller: caller.tag == self.tag)

    def on_open(self, request: Any, reply: OpenReply, bodies: list[bytes]) -> Said:
        self.told += 1
        return _replace(reply, incarnation=self.incarnation, head=0), bodies

    def ask_pull(self, request: PullRequest) -> PullRequest:
        return _replace(request, incarnation=self.desk.store.incarnation, after=0)

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        return PullReply((), 0, False), []

    def on_list(self, request: Any, reply: ListReply, bodies: list[bytes]) -> Said:
        return ListReply((), (), False), []

    def on_get(self, request: GetRequest, reply: GetReply, bodies: list[bytes]) -> Said:
        return GetReply((-1,) * len(reply.sizes)), []

    def on_have(self, request: HaveRequest, reply: HaveReply, bodies: list[bytes]) -> Said:
        return HaveReply(bytes(len(reply.present))), []

    def on_attest(self, request: Any, reply: AttestReply, bodies: list[bytes]) -> Said:
        self.told += 1
        absent = bytes(len(request.blobs))
        return self.resigned(reply, incarnation=self.incarnation, present=absent, head=0), []


class Reorders(Liar):
    """Lists new items in another order."""

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        shown = paired(reply, bodies)
        if len(shown) < 2:
            return reply, bodies
        self.told += 1
        return unpaired(shown[::-1], reply.head, more=reply.more)


class Replays(Liar):
    """Lists an item again that lies behind the cursor."""

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        if request.after < 1:
            return reply, bodies
        store = self.desk.store
        old = store.after(self.slot, self.tag, self.dice.randrange(request.after), 1, BlobClass.LOG)
        if not old or old[0].sequence > request.after:
            old = store.after(self.slot, self.tag, 0, 1, BlobClass.LOG)
        self.told += 1
        item = reply.items[0] if reply.items else None
        again: Shown = [(_item(old[0]), None)]
        shown = paired(reply, bodies)
        at = self.dice.randrange(len(shown) + 1) if item else 0
        return unpaired([*shown[:at], *again, *shown[at:]], reply.head, more=reply.more)


class SwapsGroups(Liar):
    """Lists a blob of another group in place of one of this group's."""

    foreign = b""
    foreign_body = b""

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        shown = paired(reply, bodies)
        if not shown or not self.foreign:
            return reply, bodies
        self.told += 1
        at = self.dice.randrange(len(shown))
        size = len(self.foreign_body)
        item = _replace(shown[at][0], blob=self.foreign, size=size, inline=True)
        shown[at] = (item, self.foreign_body)
        return unpaired(shown, reply.head, more=reply.more)


class FalseHead(Liar):
    """Claims sequences that it never gave out; sometimes even signs for them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.signs = self.dice.random() < 0.5

    def on_open(self, request: Any, reply: OpenReply, bodies: list[bytes]) -> Said:
        self.told += 1
        return _replace(reply, head=reply.head + FAR), bodies

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        self.told += 1
        return _replace(reply, head=reply.head + FAR), bodies

    def on_attest(self, request: Any, reply: AttestReply, bodies: list[bytes]) -> Said:
        if not self.signs:
            return reply, bodies
        return self.resigned(reply, head=self.desk.store.head(self.slot, self.tag) + FAR), bodies


class FalseHealth(Liar):
    """Refuses every write while its page says that all is well."""

    def ask_push(self, request: PushRequest) -> tuple[int, bytes]:
        code = "full" if self.dice.random() < 0.5 else "read-only"
        return self.refuse(Refusal("no room", code=code))


class Corrupts(Liar):
    """Changes bodies on their way out."""

    def change(self, body: bytes, others: Sequence[bytes]) -> bytes:
        """What is sent for `body`; of the same length."""
        at = self.dice.randrange(len(body))
        return body[:at] + bytes((body[at] ^ 1 << self.dice.randrange(8),)) + body[at + 1 :]

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        return reply, self._changed(bodies)

    def on_get(self, request: GetRequest, reply: GetReply, bodies: list[bytes]) -> Said:
        changed = self._changed(bodies)
        sizes = iter([len(body) for body in changed])
        return GetReply(tuple(next(sizes) if s >= 0 else -1 for s in reply.sizes)), changed

    def _changed(self, bodies: list[bytes]) -> list[bytes]:
        self.told += bool(bodies)
        return [self.change(body, bodies) for body in bodies]


class SwapsBodies(Corrupts):
    """Sends the body of another blob of the same group."""

    def change(self, body: bytes, others: Sequence[bytes]) -> bytes:
        first = self.desk.store.after(self.slot, self.tag, 0, 4, None)
        ids = [entry.blob for entry in first if entry.size == len(body)]
        found = self.desk.store.read(self.slot, self.tag, ids)
        choices = [other for other in found.values() if other != body]
        return self.dice.choice(choices) if choices else super().change(body, others)


class Truncates(Corrupts):
    """Cuts bodies short, and says so in the sizes, or not."""

    def on_pull(self, request: PullRequest, reply: PullReply, bodies: list[bytes]) -> Said:
        self.told += bool(bodies)
        return reply, [*bodies[:-1], bodies[-1][:-17]] if bodies else bodies

    def change(self, body: bytes, others: Sequence[bytes]) -> bytes:
        return body[: self.dice.randrange(len(body))]


class Babbles(Liar):
    """Answers what is no answer."""

    def ask_pull(self, request: PullRequest) -> tuple[int, bytes]:
        self.told += 1
        return 200, self.dice.randbytes(self.dice.randrange(64))


class ForgesReceipts(Liar):
    """Gives receipts that do not verify."""

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        self.told += 1
        match self.dice.randrange(3):
            case 0:
                stranger = SigningKey(self.dice.randbytes(32))
                batch = decode_body(Type.RECEIPT_BATCH, ReceiptBatch, reply.batch)
                return _replace(reply, batch=sign(stranger, Type.RECEIPT_BATCH, batch)), bodies
            case 1:
                last = _replace(reply.receipts[-1], sequence=reply.receipts[-1].sequence + 1)
                return _replace(reply, receipts=(*reply.receipts[:-1], last)), bodies
        body = reply.batch.body[:-1] + bytes((reply.batch.body[-1] ^ 1,))
        return _replace(reply, batch=_replace(reply.batch, body=body)), bodies


class DoublesReceipts(Liar):
    """Signs one sequence for two blobs."""

    def on_push(self, request: PushRequest, reply: PushReply, bodies: list[bytes]) -> Said:
        batch = decode_body(Type.RECEIPT_BATCH, ReceiptBatch, reply.batch)
        stored = self.desk.store.after(self.slot, self.tag, 0, FAR, None)
        entries = {entry.blob: entry for entry in stored}
        sequences = [receipt.sequence for receipt in reply.receipts]
        sequences[0] = self.dice.randrange(self.base) + 1
        leaves = [
            receipt_leaf(r.blob, self.tag, n, entries[r.blob].size, entries[r.blob].born)
            for r, n in zip(reply.receipts, sequences, strict=True)
        ]
        root, paths = merkle.paths(leaves)
        self.told += 1
        receipts = tuple(
            _replace(r, sequence=n, index=index, path=tuple(paths[index]))
            for index, (r, n) in enumerate(zip(reply.receipts, sequences, strict=True))
        )
        double = _replace(batch, root=root, size=len(leaves))
        return PushReply(self.sign(Type.RECEIPT_BATCH, double), receipts), bodies


class WillNotSign(Liar):
    """Signs nothing that it is not paid for."""

    def ask_attest(self, request: Any) -> tuple[int, bytes]:
        code = self.dice.choice(["verb", "forbidden", "malformed"])
        return self.refuse(PeerFault("not here", code=code))


def _item(entry: Entry) -> Item:
    return Item(entry.sequence, entry.blob, entry.size, entry.blob_class, False)


def _replace(message: M, **fields: Any) -> M:
    return msgspec.structs.replace(message, **fields)
