"""The front door: every verb has a row that says who may use it; anything else is refused.

A request is parsed strictly, its session found, its caller's kind compared with the row, and only
then is the verb carried out. What goes wrong becomes an `ErrorReply`; bugs are not caught here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from holdfast import __version__
from holdfast.errors import OperationFault, PeerFault
from holdfast.limits import HEALTH_PERIOD_S, REQUEST_BYTES_MAX
from holdfast.relay import opening, verbs
from holdfast.relay.desk import Desk
from holdfast.relay.sessions import Caller, Kind
from holdfast.rim.store.port import StoreFigures
from holdfast.wire.codec import Message, pack_json
from holdfast.wire.faults import RETRYABLE, to_reply
from holdfast.wire.frame import join, split
from holdfast.wire.pool import (
    AttestRequest,
    Empty,
    GetRequest,
    HaveRequest,
    HelloRequest,
    ListRequest,
    OpenRequest,
    PullRequest,
    PushRequest,
    ReconcileRequest,
    ReportRequest,
    WatchRequest,
)

Reply = tuple[Message, Sequence[bytes | memoryview]]
Work = Callable[[Desk, Caller | None, Any, memoryview], Awaitable[Reply]]
_ANYONE: frozenset[Kind] = frozenset()
_FAULTS = RETRYABLE - {"draining", "rate"}
"""Refusals that are the server's own doing. One that drains is asked to; a caller over its own rate
shall not make a server look ill."""
_GROUPS = frozenset({Kind.GROUP})
_NODES = frozenset({Kind.NODE})
_BOTH = _GROUPS | _NODES


class Verb(NamedTuple):
    """A row: the request's shape, who may ask, whether it has bodies, what it does."""

    request: type[Message]
    callers: frozenset[Kind]
    """Kinds of session that may; empty where no session is asked for."""
    attachments: bool
    work: Work


async def _hello(desk: Desk, caller: Caller | None, request: HelloRequest, _: Any) -> Reply:
    return opening.hello(desk, request), ()


async def _open(desk: Desk, caller: Caller | None, request: OpenRequest, _: Any) -> Reply:
    return await opening.open_session(desk, request), ()


async def _push(desk: Desk, caller: Caller, request: PushRequest, bodies: memoryview) -> Reply:
    return await verbs.push(desk, caller, request, bodies), ()


async def _pull(desk: Desk, caller: Caller, request: PullRequest, _: Any) -> Reply:
    return verbs.pull(desk, caller, request)


async def _get(desk: Desk, caller: Caller, request: GetRequest, _: Any) -> Reply:
    return await verbs.get(desk, caller, request)


async def _have(desk: Desk, caller: Caller, request: HaveRequest, _: Any) -> Reply:
    return verbs.have(desk, caller, request), ()


async def _list(desk: Desk, caller: Caller, request: ListRequest, _: Any) -> Reply:
    return await verbs.listing(desk, caller, request), ()


async def _watch(desk: Desk, caller: Caller | None, request: WatchRequest, _: Any) -> Reply:
    return await verbs.watch(desk, request), ()


async def _reconcile(desk: Desk, caller: Caller, request: ReconcileRequest, _: Any) -> Reply:
    return await verbs.reconcile(desk, caller, request), ()


async def _report(desk: Desk, caller: Caller, request: ReportRequest, _: Any) -> Reply:
    verbs.report(desk, caller, request.name, request.region)
    return Empty(), ()


async def _attest(desk: Desk, caller: Caller, request: AttestRequest, _: Any) -> Reply:
    return verbs.attest(desk, caller, request), ()


VERBS: dict[str, Verb] = {
    "hello": Verb(HelloRequest, _ANYONE, False, _hello),
    "open": Verb(OpenRequest, _ANYONE, False, _open),
    "push": Verb(PushRequest, _BOTH, True, _push),  # type: ignore[arg-type]
    "pull": Verb(PullRequest, _GROUPS, False, _pull),  # type: ignore[arg-type]
    "get": Verb(GetRequest, _BOTH, False, _get),  # type: ignore[arg-type]
    "have": Verb(HaveRequest, _GROUPS, False, _have),  # type: ignore[arg-type]
    "list": Verb(ListRequest, _GROUPS, False, _list),  # type: ignore[arg-type]
    "watch": Verb(WatchRequest, _ANYONE, False, _watch),
    "reconcile": Verb(ReconcileRequest, _NODES, False, _reconcile),  # type: ignore[arg-type]
    "report": Verb(ReportRequest, _GROUPS, False, _report),  # type: ignore[arg-type]
    "attest": Verb(AttestRequest, _GROUPS, False, _attest),  # type: ignore[arg-type]
}
"""`watch` names many sessions and checks each of them itself."""


class Door:
    """A `PoolHandler` over a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._started_at = desk.real_s()
        self._health = b""
        self._health_at = float("-inf")

    async def answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        """As `PoolHandler.answer`."""
        desk = self._desk
        desk.requests += 1
        try:
            desk.rates.admit(desk.real_s())
            header, bodies = await self._carry_out(verb, body)
        except (PeerFault, OperationFault) as error:
            status, reply = to_reply(error)
            desk.counts[f"refused_{reply.code}"] += 1
            desk.faults += reply.code in _FAULTS
            return status, join(reply)
        desk.counts[verb] += 1
        return 200, join(header, bodies)

    async def _carry_out(self, verb: str, body: bytes) -> Reply:
        row = VERBS.get(verb)
        if row is None:
            raise PeerFault("no such verb", code="verb")
        request, bodies = split(row.request, body)
        if len(bodies) and not row.attachments:
            raise PeerFault("attachments where none belong")
        caller = None
        if row.callers:
            caller = self._desk.sessions.find(request.session)  # type: ignore[attr-defined]
            if caller.kind not in row.callers:
                raise PeerFault(f"a {caller.kind} may not {verb}", code="forbidden")
            self._desk.touch(caller)
        return await row.work(self._desk, caller, request, bodies)

    # --- Public pages ----------------------------------------------------------------------------
    def page(self, path: str) -> tuple[int, str, bytes]:
        """As `PoolHandler.page`: /health and nothing else."""
        if path != "/health":
            return 404, "text/plain", b"no such page\n"
        now = self._desk.real_s()
        if now - self._health_at >= HEALTH_PERIOD_S:
            self._health, self._health_at = pack_json(self.health()), now
        return 200, "application/json", self._health

    def health(self) -> dict[str, object]:
        """Figures without names."""
        desk, figures = self._desk, self._desk.store.figures()
        leaving = desk.leaving or desk.retired
        degraded = bool(figures.trouble) or self._crowded(figures)
        status = "leaving" if leaving else "degraded" if degraded else "ok"
        return {
            "status": status,
            "version": __version__,
            "at": desk.clock.wall(),
            "sessions": len(desk.sessions),
            "groups": figures.groups,
            "blobs": figures.blobs,
            "stored_bytes": figures.stored_bytes,
            "uptime_s": int(desk.real_s() - self._started_at),
        }

    def _crowded(self, figures: StoreFigures) -> bool:
        """Whether some writes are refused for want of room although the disk has some."""
        policy = self._desk.policy.store
        room = policy.store_bytes_max - figures.stored_bytes
        return room < REQUEST_BYTES_MAX or figures.groups >= policy.groups_max
