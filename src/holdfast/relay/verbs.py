"""The verbs that move blobs. Each takes the desk, the caller and the request it was authorised for.

A verb raises PeerFault for what the caller did wrong and Refusal or WriteRefused for what this
server cannot do now; the door turns both into replies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from holdfast.crypto.blob import read_header
from holdfast.crypto.pure import derive_key, hash_bytes
from holdfast.errors import PeerFault
from holdfast.limits import (
    BLOBS_PER_PUSH_MAX,
    BORN_SKEW_DAYS_MAX,
    GET_THREAD_BYTES,
    IDS_PER_REQUEST_MAX,
    INLINE_BYTES_MAX,
    LISTED_ROWS_PER_TOKEN,
    MIB,
    PULL_ITEMS_MAX,
    WATCH_TAGS_MAX,
    WATCH_WAIT_S_MAX,
)
from holdfast.limits.evidence import ATTEST_COST, ATTEST_IDS_MAX
from holdfast.logic.fleet.model import Role, Version
from holdfast.relay.desk import Desk
from holdfast.relay.rates import cost_of
from holdfast.relay.sessions import Caller, Kind
from holdfast.rim.store.port import Entry, Incoming
from holdfast.wire.envelope import sign
from holdfast.wire.faults import Refusal
from holdfast.wire.frame import cut
from holdfast.wire.pool import (
    Attestation,
    AttestReply,
    AttestRequest,
    BlobClass,
    GetReply,
    GetRequest,
    HaveReply,
    HaveRequest,
    Item,
    ListReply,
    ListRequest,
    PullReply,
    PullRequest,
    PushReply,
    PushRequest,
    ReconcileItem,
    ReconcileReply,
    ReconcileRequest,
    WatchReply,
    WatchRequest,
)
from holdfast.wire.signed import Type

BODIES_BYTES_MAX = 4 * MIB
"""Attachments of one reply: `REQUEST_BYTES_MAX` without room for the header."""


def canary_tag(prober: bytes) -> bytes:
    """The one tag for which a node may push: its own canaries (seed 004 §3.2)."""
    return derive_key("holdfast v1 canary tag", prober)


def _tag_of(caller: Caller, named: bytes) -> bytes:
    """The tag a request is about: a group's own, or the one a node names."""
    if caller.kind is Kind.NODE:
        if len(named) != 32:
            raise PeerFault("a node names the tag")
        return named
    if named not in (b"", caller.tag):
        raise PeerFault("a session speaks for one tag", code="forbidden")
    return caller.tag


# --- push ----------------------------------------------------------------------------------------
async def push(desk: Desk, caller: Caller, request: PushRequest, bodies: memoryview) -> PushReply:
    """Store, and answer once it is durable."""
    tag = _tag_of(caller, request.tag)
    canary = request.blob_class is BlobClass.CANARY
    if canary != (caller.kind is Kind.NODE):
        raise PeerFault("groups push log and bulk, nodes push canaries", code="forbidden")
    if canary and tag != canary_tag(caller.node):
        raise PeerFault("a node pushes for its own canary tag only", code="forbidden")
    if desk.seats.find(caller.slot).left:
        raise Refusal("another server has this seat now", code="draining")
    if not caller.admitted and not desk.readmit(caller):
        raise PeerFault("the first push for a tag spends a ticket: open with one", code="ticket")
    if not 0 < len(request.sizes) <= BLOBS_PER_PUSH_MAX:
        raise PeerFault(f"a push is 1 to {BLOBS_PER_PUSH_MAX} blobs", code="too-large")
    desk.charge(caller, cost_of(len(bodies)))
    if caller.terms is not None and caller.terms.group_bytes_max < desk.store_bytes_max:
        used = desk.store.used_bytes(caller.slot, tag)
        if used + len(bodies) > caller.terms.group_bytes_max:
            raise PeerFault("this tag's ticket grants no more room", code="quota")
    today = desk.today()
    blobs = [_incoming(desk.role, today, body) for body in cut(bodies, request.sizes)]
    return await desk.store.push(caller.slot, tag, request.blob_class, blobs)


def _incoming(role: Role, today: int, body: memoryview) -> Incoming:
    born = read_header(body).born
    late = born - today
    if late > BORN_SKEW_DAYS_MAX or (role is Role.RELAY and late < -BORN_SKEW_DAYS_MAX):
        raise PeerFault(f"born on day {born}, today is {today}", code="born")
    return Incoming(hash_bytes(body), born, body)


# --- pull, get, have, list -----------------------------------------------------------------------
def pull(desk: Desk, caller: Caller, request: PullRequest) -> tuple[PullReply, Sequence[bytes]]:
    """Items after a cursor, small bodies along with them."""
    store, slot, tag = desk.store, caller.slot, caller.tag
    head = store.head(slot, tag)
    if request.incarnation != store.incarnation or request.after > head:
        raise PeerFault("the cursor is of another incarnation: reconcile", code="incarnation")
    count = _count(request.items_max)
    items: list[Item] = []
    bodies: list[bytes] = []
    after, more = request.after, True
    while more and not items:  # a page of rotten blobs is stepped over
        page = store.after(slot, tag, after, count + 1, request.blob_class)
        more = len(page) > count
        items, bodies, rest = _page(desk, caller, page[:count])
        more = more or rest
        after = page[:count][-1].sequence if page else after
    desk.charge(caller, cost_of(sum(map(len, bodies))))
    head = max(head, items[-1].sequence if items else 0)
    return PullReply(tuple(items), head, more), bodies


def _page(
    desk: Desk, caller: Caller, page: Sequence[Entry]
) -> tuple[list[Item], list[bytes], bool]:
    """Items with their bodies, as many as fit; true when some did not."""
    total, fitting = 0, 0
    for entry in page:
        total += entry.size if entry.size <= INLINE_BYTES_MAX else 0
        if total > BODIES_BYTES_MAX:
            break
        fitting += 1
    shown = page[:fitting]
    small = [entry.blob for entry in shown if entry.size <= INLINE_BYTES_MAX]
    found = desk.store.read(caller.slot, caller.tag, small)
    items: list[Item] = []
    bodies: list[bytes] = []
    for entry in shown:
        inline = entry.size <= INLINE_BYTES_MAX
        if inline:
            body = found.get(entry.blob)
            if body is None:
                continue  # rotten, and missing from now on
            bodies.append(body)
        items.append(_item(entry, inline=inline))
    return items, bodies, fitting < len(page)


async def get(
    desk: Desk, caller: Caller, request: GetRequest
) -> tuple[GetReply, Sequence[bytes | memoryview]]:
    """Bodies by id; as many of the first ones as one reply holds."""
    tag = _tag_of(caller, request.tag)
    _check_ids(request.blobs)
    if (request.offset or request.length) and len(request.blobs) != 1:
        raise PeerFault("a range goes with one id")
    if request.offset < 0 or request.length < 0:
        raise PeerFault("a range is not negative")
    sizes = desk.store.sizes(caller.slot, tag, request.blobs)
    asked: list[bytes] = []
    total = 0
    for blob in request.blobs:
        total += sizes.get(blob, 0)
        if asked and total > BODIES_BYTES_MAX:
            total -= sizes.get(blob, 0)
            break
        asked.append(blob)
    desk.charge(caller, cost_of(total))
    if total > GET_THREAD_BYTES:
        found = await asyncio.to_thread(desk.store.read, caller.slot, tag, asked)
    else:
        found = desk.store.read(caller.slot, tag, asked)
    bodies = [_cut_out(found.get(blob), request) for blob in asked]
    kept = [body for body in bodies if body is not None]
    return GetReply(tuple(-1 if body is None else len(body) for body in bodies)), kept


def _cut_out(body: bytes | None, request: GetRequest) -> memoryview | None:
    if body is None:
        return None
    end = request.offset + request.length if request.length else len(body)
    return memoryview(body)[request.offset : end]


def have(desk: Desk, caller: Caller, request: HaveRequest) -> HaveReply:
    """Which ids are durable here."""
    _check_ids(request.blobs)
    desk.charge(caller, 1.0)
    sizes = desk.store.sizes(caller.slot, caller.tag, request.blobs)
    return HaveReply(bytes(blob in sizes for blob in request.blobs))


async def listing(desk: Desk, caller: Caller, request: ListRequest) -> ListReply:
    """Items by (born day, id)."""
    count = _count(request.items_max)
    born, blob = request.after or (request.born_from, b"")
    if born < request.born_from:
        raise PeerFault("`after` lies before `born_from`")
    head = desk.store.head(caller.slot, caller.tag)
    desk.charge(caller, 1.0 + head / LISTED_ROWS_PER_TOKEN)
    entries = await asyncio.to_thread(
        desk.store.listing, caller.slot, caller.tag, born, blob, count + 1
    )
    shown = entries[:count]
    items = tuple(_item(entry, inline=False) for entry in shown)
    return ListReply(items, tuple(entry.born for entry in shown), len(entries) > count)


def _item(entry: Entry, *, inline: bool) -> Item:
    return Item(entry.sequence, entry.blob, entry.size, entry.blob_class, inline)


def _count(items_max: int) -> int:
    if items_max <= 0:
        raise PeerFault("at least one item")
    return min(items_max, PULL_ITEMS_MAX)


def _check_ids(blobs: Sequence[bytes]) -> None:
    if not 0 < len(blobs) <= IDS_PER_REQUEST_MAX:
        raise PeerFault(f"1 to {IDS_PER_REQUEST_MAX} ids in one request", code="too-large")
    if any(len(blob) != 32 for blob in blobs):
        raise PeerFault("a blob id is 32 bytes")


def attest(desk: Desk, caller: Caller, request: AttestRequest) -> AttestReply:
    """Sign what we have of these and how far the tag's sequences go (D15)."""
    if len(request.blobs) > ATTEST_IDS_MAX or any(len(blob) != 32 for blob in request.blobs):
        raise PeerFault(f"at most {ATTEST_IDS_MAX} ids of 32 bytes", code="too-large")
    desk.charge(caller, ATTEST_COST)
    store, slot, tag = desk.store, caller.slot, caller.tag
    sizes = store.sizes(slot, tag, request.blobs) if request.blobs else {}
    attestation = Attestation(
        node=desk.node,
        incarnation=store.incarnation,
        tag=tag,
        head=store.head(slot, tag),
        blobs=request.blobs,
        present=bytes(blob in sizes for blob in request.blobs),
        at=desk.clock.wall(),
    )
    return AttestReply(sign(desk.identity, Type.ATTESTATION, attestation))


# --- watch ---------------------------------------------------------------------------------------
async def watch(desk: Desk, request: WatchRequest) -> WatchReply:
    """Wait for news of many tags; the token of a session is all it takes."""
    if len(request.after) != len(request.sessions):
        raise PeerFault("one `after` for each session")
    if not 0 < len(request.sessions) <= WATCH_TAGS_MAX:
        raise PeerFault(f"1 to {WATCH_TAGS_MAX} sessions in one watch", code="too-large")
    callers = [_watched(desk, token) for token in request.sessions]
    for caller in callers:
        if caller is not None:
            desk.charge(caller, 1.0)
            break
    pairs = {(caller.slot, caller.tag) for caller in callers if caller is not None}
    event = desk.watchers.hang(pairs)
    try:
        # Hung before the look: what is committed from now on sets the event.
        heads = _heads(desk, callers)
        wait_s = min(max(request.wait_s, 0.0), WATCH_WAIT_S_MAX)
        news = any(
            head < 0 or head > after for head, after in zip(heads, request.after, strict=True)
        )
        if not news and not desk.leaving:
            await _wait(desk, event, wait_s)
    finally:
        desk.watchers.take_down(pairs, event)
    callers = [_watched(desk, token) for token in request.sessions]
    return WatchReply(tuple(_heads(desk, callers)), tuple(_records(desk, callers)))


async def _wait(desk: Desk, event: asyncio.Event, wait_s: float) -> None:
    try:
        async with desk.clock.real_timeout(wait_s):
            await event.wait()
    except TimeoutError:
        return


def _watched(desk: Desk, token: bytes) -> Caller | None:
    try:
        caller = desk.sessions.find(token)
    except PeerFault:
        return None
    if caller.kind is not Kind.GROUP:
        raise PeerFault("only groups watch", code="forbidden")
    desk.touch(caller)
    return caller


def _heads(desk: Desk, callers: Sequence[Caller | None]) -> list[int]:
    return [-1 if c is None else desk.store.head(c.slot, c.tag) for c in callers]


def _records(desk: Desk, callers: Sequence[Caller | None]) -> list[Version | None]:
    versions: list[Version | None] = []
    for caller in callers:
        seated = None if caller is None else desk.seats.get(caller.slot)
        versions.append(None if seated is None else seated.record.version)
    return versions


# --- reconcile, report ---------------------------------------------------------------------------
async def reconcile(desk: Desk, caller: Caller, request: ReconcileRequest) -> ReconcileReply:
    """What this server has of the slot, coarse to fine."""
    desk.charge(caller, 1.0)
    store, slot, born, bucket = desk.store, caller.slot, request.born, request.bucket
    if born is None:
        if bucket is not None:
            raise PeerFault("a bucket belongs to a day")
        return ReconcileReply(days=store.days(slot))
    if bucket is None:
        return ReconcileReply(buckets=store.buckets(slot, born))
    if not 0 <= bucket < 256:
        raise PeerFault("there are 256 buckets")
    items = await asyncio.to_thread(store.day_items, slot, born, bucket)
    desk.charge(caller, cost_of(100 * len(items)))
    return ReconcileReply(items=tuple(ReconcileItem(*item) for item in items))


def report(desk: Desk, caller: Caller, name: str, region: str) -> None:
    """A client cannot reach another server of the slot. A hint; it counts once per tag, and only
    for a tag whose blobs have been here for a while (seed 004 §9.1)."""
    desk.charge(caller, 1.0)
    if len(name) > 255 or len(region) > 32:
        raise PeerFault("a name or region that is none")
    seated = desk.seats.find(caller.slot)
    if name not in {seat.name for seat in seated.peers()}:
        desk.counts["reports_ignored"] += 1
        return
    if desk.tickets.required and desk.tickets.terms(caller.tag) is None:
        desk.counts["reports_ignored"] += 1
        return
    first_at = desk.store.first_at(caller.slot, caller.tag)
    age_s = 0.0 if first_at is None else (desk.clock.wall() - first_at) * desk.clock.scale
    if first_at is None or age_s < desk.report_tag_age_s:
        desk.counts["reports_ignored"] += 1
        return
    desk.counts["reports_counted"] += 1
    desk.note_report(caller.tag, name, region)
