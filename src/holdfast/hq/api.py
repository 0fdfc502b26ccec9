"""HQ's API over TLS: who may call what is one table, and what the table does not allow is refused.

A caller is who its certificate says, looked up in the fleet's rows: nobody (no certificate), a
relay, a replica, an entry, a core, a node that was retired or revoked, or a stranger (a certificate
of this network that belongs to no node, such as another HQ's). TLS already turns revoked
certificates away and cuts their live connections; the table refuses them once more.

Bodies are strict JSON of the shape in `wire.hq`; sizes and times are bounded by `rim.https`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from holdfast import __version__
from holdfast.crypto.certinfo import NodeName
from holdfast.crypto.pure import base32
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.parts import Parts
from holdfast.hq.rates import Rates
from holdfast.hq.subscriptions import SubscriptionApp
from holdfast.limits import API_BODY_BYTES_MAX
from holdfast.limits.evidence import EVIDENCE_BURST, EVIDENCE_PER_S
from holdfast.limits.trust import NOTE_BYTES_MAX
from holdfast.logic.fleet.model import NodeId, Role
from holdfast.logic.fleet.rows import NodeRow, NodeState
from holdfast.logic.trust.tiles import ENTRIES, entries_of, hashes_of, parse_tile
from holdfast.rim.https import EXCEPTION_HANDLERS, peer_certificate
from holdfast.wire.access import SubscriptionView, UsageReceipt, UsageReport
from holdfast.wire.codec import Message, pack_json, unpack, unpack_json
from holdfast.wire.front import FrontKeys
from holdfast.wire.hq import (
    AboutReply,
    Accusation,
    Alert,
    Application,
    ApplicationList,
    ApplicationReply,
    CheckpointReply,
    Cosignature,
    EvidenceReply,
    EvidenceReport,
    Heartbeat,
    HeartbeatReply,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    LogFault,
    OverrideRequest,
    Problem,
    RenewRequest,
    RootReply,
    SlotReply,
    SlotRequest,
    StandbyReply,
    StandbyRequest,
    Standing,
    StapleReply,
    Vote,
)
from holdfast.wire.pool import Empty
from holdfast.wire.records import Staple
from holdfast.wire.signed import SIGNED_BYTES_MAX
from holdfast.wire.tickets import TicketReply, TicketRequest
from holdfast.wire.versions import at_wire, common

if TYPE_CHECKING:
    from holdfast.hq.front import FrontDesk


class Caller(StrEnum):
    """Who calls, by certificate and row."""

    NOBODY = "nobody"
    RELAY = "relay"
    REPLICA = "replica"
    ENTRY = "entry"
    CORE = "core"
    RETIRED = "retired"
    REVOKED = "revoked"
    STRANGER = "stranger"


ANYONE: Final = frozenset(Caller) - {Caller.REVOKED}
STORE: Final = frozenset({Caller.RELAY, Caller.REPLICA})
ACCESS: Final = frozenset({Caller.ENTRY, Caller.CORE})
MEMBER: Final = STORE | ACCESS
SERVED: Final = MEMBER | {Caller.RETIRED}
"""A retired node may still learn that it is."""


@dataclass(frozen=True)
class Call:
    """One request that the table let through. `node` is set for callers with a row."""

    parts: Parts
    request: Request
    source: str
    name: NodeName | None
    row: NodeRow | None
    body: Any

    @property
    def node(self) -> NodeId:
        """The calling node; only for rules that need one."""
        assert self.row is not None, "the table lets members only through"
        return self.row.node


Handler = Callable[["Api", Call], Awaitable[msgspec.Struct | Response]]


class Rule(Message):
    """One row of the table: these callers may call this, with a body of this shape."""

    method: str
    path: str
    callers: frozenset[Caller]
    handler: str
    body: Any = None


RULES: Final = (
    Rule("GET", "/v1/root", ANYONE, "root"),
    Rule("GET", "/v1/about", ANYONE, "about"),
    Rule("POST", "/v1/join", frozenset({Caller.NOBODY}), "join", JoinRequest),
    Rule("POST", "/v1/standby", frozenset({Caller.NOBODY}), "standby", StandbyRequest),
    Rule("POST", "/v1/join-requests", ANYONE, "apply", Application),
    Rule("GET", "/v1/join-requests/{id}", ANYONE, "application"),
    Rule("POST", "/v1/slots", ANYONE, "allocate", SlotRequest),
    Rule("GET", "/v1/slots/{slot}", ANYONE, "slot"),
    Rule("GET", "/v1/revocations", ANYONE, "revocations"),
    Rule("GET", "/v1/witnesses", ANYONE, "witnesses"),
    Rule("GET", "/v1/ticket-keys", ANYONE, "ticket_keys"),
    Rule("POST", "/v1/tickets", ANYONE, "sign_tickets", TicketRequest),
    Rule("GET", "/checkpoint", ANYONE, "newest_checkpoint"),
    Rule("GET", "/tile/{path:path}", ANYONE, "tile"),
    Rule("POST", "/v1/access/usage", ACCESS, "usage", UsageReport),
    Rule("GET", "/v1/access/subscriptions/{token}", ANYONE, "subscription"),
    Rule("POST", "/v1/evidence", ANYONE, "evidence", EvidenceReport),
    Rule("GET", "/sub/{token}", ANYONE, "subscribe"),
    Rule("GET", "/sub/{token}/{format}", ANYONE, "subscribe"),
    Rule("POST", "/v1/renew", MEMBER, "renew", RenewRequest),
    Rule("POST", "/v1/heartbeat", MEMBER, "heartbeat", Heartbeat),
    Rule("GET", "/v1/applications", MEMBER, "applications"),
    Rule("POST", "/v1/applications/{id}/votes", MEMBER, "vote", Vote),
    Rule("GET", "/v1/desired", SERVED, "desired"),
    Rule("GET", "/v1/releases/{id}", MEMBER, "release"),
    Rule("POST", "/v1/alerts", STORE, "alert", Alert),
    Rule("POST", "/v1/accusations", STORE, "accuse", Accusation),
    Rule("GET", "/v1/standing", MEMBER, "standing"),
    Rule("POST", "/v1/leave", MEMBER, "leave", LeaveRequest),
    Rule("GET", "/v1/checkpoint", MEMBER, "checkpoint"),
    Rule("POST", "/v1/cosignatures", MEMBER, "cosign", Cosignature),
    Rule("POST", "/v1/log-faults", MEMBER, "log_fault", LogFault),
    Rule("POST", "/v1/overrides", MEMBER, "override", OverrideRequest),
    Rule("GET", "/v1/front", ACCESS, "front_keys"),
    Rule("POST", "/v1/front", ACCESS, "front", bytes),
    Rule("GET", "/v1/copy", ACCESS, "copy"),
)


class Api:
    """The handlers. Each gets a call that the table allowed and gives the reply's message."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        config = parts.config
        self._slots = Rates(parts.clock, config.slots_per_s, config.slots_burst)
        self._evidence = Rates(parts.clock, EVIDENCE_PER_S, EVIDENCE_BURST)
        self._refusals = Rates(parts.clock, config.refusals_per_s, config.refusals_burst)
        self._subscriptions = SubscriptionApp(parts.subscriptions, config.subscriptions_url)

    def application(self) -> Starlette:
        """The ASGI application."""
        routes = [Route(rule.path, self._endpoint(rule), methods=[rule.method]) for rule in RULES]
        handlers = {**EXCEPTION_HANDLERS, HTTPException: no_such_route}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _endpoint(self, rule: Rule) -> Callable[[Request], Awaitable[Response]]:
        handler: Handler = HANDLERS[rule.handler]

        async def endpoint(request: Request) -> Response:
            shown = peer_certificate(request.scope)
            name = shown.name if shown is not None else None
            certificates = shown.certificates if shown is not None else ()
            revoked = self.parts.revocations.entries.find_in(certificates) is not None
            row = await self.parts.desired.find(name.node) if name is not None else None
            caller = caller_of(name, row, revoked)
            if caller not in rule.callers:
                raise PeerFault(f"a {caller.value} may not do this", code="forbidden")
            body = await _body(request, rule.body)
            source = request.client.host if request.client else ""
            call = Call(self.parts, request, source, name, row, body)
            reply = await handler(self, call)
            return reply if isinstance(reply, Response) else json_response(reply)

        return endpoint

    # --- Anyone ----------------------------------------------------------------------------------
    async def root(self, call: Call) -> RootReply:
        authority = self.parts.authority
        return RootReply(authority.network, authority.domain, authority.roots)

    async def about(self, call: Call) -> AboutReply:
        return AboutReply(__version__, self.parts.clock.wall())

    async def join(self, call: Call) -> JoinReply:
        self._refusals.check(call.source)
        try:
            return await self.parts.joining.join(call.body, call.source)
        except PeerFault:
            self._refusals.spend(call.source)
            raise

    async def standby(self, call: Call) -> StandbyReply:
        """Whether a machine that stands by is called."""
        self._refusals.check(call.source)
        brain = self.parts.acting()
        try:
            return await self.parts.standby_desk().ask(call.body.secret, brain.stands_by)
        except PeerFault:
            self._refusals.spend(call.source)
            raise

    async def apply(self, call: Call) -> ApplicationReply:
        self._slots.charge(call.source)
        return await self.parts.applications.apply(call.body)

    async def application_state(self, call: Call) -> ApplicationReply:
        self._refusals.charge(call.source)
        return await self.parts.applications.state(call.request.path_params["id"])

    async def allocate(self, call: Call) -> SlotReply:
        self._slots.charge(call.source)
        staple = await self.parts.acting().allocate(call.body.region)
        await self.parts.log.settle()
        return SlotReply(self._stapled(staple))

    async def slot(self, call: Call) -> SlotReply:
        try:
            slot = bytes.fromhex(call.request.path_params["slot"])
        except ValueError as error:
            raise PeerFault("a slot is 32 hexadecimal digits") from error
        row = self.parts.desired.slot(slot)
        if row is None or not row.staple:
            raise PeerFault("no such slot", code="not-found")
        return SlotReply(self._stapled(unpack(Staple, row.staple, bytes_max=2 * SIGNED_BYTES_MAX)))

    def _stapled(self, staple: Staple) -> Staple:
        """With today's proofs: ours, and the log's."""
        return self.parts.checkpoints.attach(self.parts.authority.current(staple))

    async def revocations(self, call: Call) -> StapleReply:
        staple = self.parts.revocations.staple
        assert staple is not None, "loaded before the API serves"
        return StapleReply(staple)

    async def witnesses(self, call: Call) -> StapleReply:
        staple = self.parts.witnesses.staple
        if staple is None:
            raise PeerFault("no witness set yet", code="not-found")
        return StapleReply(self._stapled(staple))

    async def ticket_keys(self, call: Call) -> StapleReply:
        staple = self.parts.desired.ticket_keys
        if staple is None:
            raise PeerFault("this network has no tickets", code="not-found")
        return StapleReply(self._stapled(staple))

    async def sign_tickets(self, call: Call) -> TicketReply:
        self._refusals.check(call.source)
        try:
            return await self.parts.tickets.sign(call.body)
        except PeerFault:
            self._refusals.spend(call.source)
            raise

    # --- The log, as c2sp.org/tlog-tiles has it --------------------------------------------------
    async def newest_checkpoint(self, call: Call) -> Response:
        note = self.parts.checkpoints.newest()
        return Response(note, media_type="text/plain", headers={"cache-control": "no-store"})

    async def tile(self, call: Call) -> Response:
        tile = parse_tile(call.request.path_params["path"])
        log = self.parts.log
        if tile.level == ENTRIES:
            leaves = await log.leaves(tile.start, tile.width)
            if len(leaves) != tile.width:
                raise PeerFault("the log is not that long", code="not-found")
            data = entries_of(leaves)
        else:
            data = hashes_of(log.tree, tile)
        forever = {"cache-control": "public, max-age=31536000, immutable"}
        return Response(data, media_type="application/octet-stream", headers=forever)

    async def evidence(self, call: Call) -> EvidenceReply:
        self._evidence.charge(call.source)
        reply, verdict, line = await self.parts.evidence.take(call.body.evidence)
        if line is not None and self.parts.brain is not None:
            self.parts.brain.accuse(verdict.node, line)
        return reply

    # --- Nodes -----------------------------------------------------------------------------------
    async def checkpoint(self, call: Call) -> CheckpointReply:
        assert call.row is not None
        return await self.parts.checkpoints.offer(call.row, _after(call.request))

    async def cosign(self, call: Call) -> Empty:
        assert call.row is not None
        await self.parts.checkpoints.cosign(call.row, call.body.size, call.body.line)
        return Empty()

    async def log_fault(self, call: Call) -> Empty:
        """A node says that the log has two faces. Both notes go into the audit log, whoever is
        at fault: an operator looks."""
        assert call.row is not None
        fault: LogFault = call.body
        notes = (fault.held[:NOTE_BYTES_MAX], fault.offered[:NOTE_BYTES_MAX])
        held, offered = (note.decode(errors="replace") for note in notes)
        self._refusals.charge(call.source)
        detail = {"reason": fault.reason[:40], "held": held, "offered": offered}
        await self.parts.audit.line("log.disputed", call.row.name, **detail)
        return Empty()

    async def override(self, call: Call) -> Empty:
        assert call.row is not None
        statement = await self.parts.checkpoints.override(call.row, call.body.signed)
        detail = {"owner": call.row.owner, "record": statement.record.hex()}
        await self.parts.audit.line("slot.override", statement.slot.hex(), **detail)
        return Empty()

    async def renew(self, call: Call) -> JoinReply:
        return await self.parts.joining.renew(call.node, call.body)

    async def heartbeat(self, call: Call) -> HeartbeatReply:
        await self.parts.acting().heartbeat(call.node, call.body)
        self.parts.rolling().beat(call.node, call.body)
        assert call.row is not None
        if call.row.role is Role.ENTRY:
            self.parts.access.watch.beat(call.row, call.body.load.sessions)
        elif call.row.role is Role.CORE:
            await self.parts.access.loaded(call.row.name, call.body.load.busy)
        book = self.parts.desired
        version = self.parts.revocations.entries.version
        return HeartbeatReply(book.version(call.node), version, book.term)

    async def desired(self, call: Call) -> Response:
        book = self.parts.desired
        wire = common(_number(call.request, "wire", 1))
        await self.parts.log.settle()
        desired = await book.wait(call.node, _after(call.request))
        row = book.node(call.node)
        if row is None or row.state is NodeState.REVOKED:  # it happened while we waited
            raise PeerFault("this node is revoked", code="revoked")
        return json_response(at_wire(desired, wire))

    async def release(self, call: Call) -> Response:
        """An archive, to a member; a statement that is in the store says that it may be had."""
        try:
            id = bytes.fromhex(call.request.path_params["id"])
        except ValueError as error:
            raise PeerFault("a release is 64 hexadecimal digits") from error
        if all(row.id != id for row in await self.parts.releases.rows()):
            raise PeerFault("no such release", code="not-found")
        archive = await asyncio.to_thread(self.parts.releases.archive, id)
        return Response(archive, media_type="application/octet-stream")

    async def alert(self, call: Call) -> Empty:
        assert call.name is not None
        await self.parts.acting().alert(call.name, call.body)
        return Empty()

    async def accuse(self, call: Call) -> Empty:
        assert call.row is not None
        line = await self.parts.evidence.hear(call.row, call.body)
        if line is not None and self.parts.brain is not None:
            self.parts.brain.show(line)
        return Empty()

    async def applications(self, call: Call) -> ApplicationList:
        return ApplicationList(await self.parts.applications.items())

    async def vote(self, call: Call) -> Empty:
        assert call.row is not None
        id = call.request.path_params["id"]
        await self.parts.applications.vote(id, call.row, call.body.yes)
        return Empty()

    async def standing(self, call: Call) -> Standing:
        node = base32(call.node)
        for server in self.parts.acting().view().servers:
            if server.node == node:
                return Standing(
                    name=server.name,
                    tier=server.tier,
                    witnesses=server.witnesses,
                    first_failed_at=server.first_failed_at,
                    addresses=server.addresses,
                )
        raise PeerFault("this node has no seat", code="not-found")

    async def leave(self, call: Call) -> Empty:
        await self.parts.acting().left(call.node, call.body.reason[:200])
        return Empty()

    # --- Fronts ----------------------------------------------------------------------------------
    async def front_keys(self, call: Call) -> FrontKeys:
        return await self._desk().keys.told()

    async def front(self, call: Call) -> Response:
        assert call.row is not None
        status, data = await self._desk().take(call.body, call.row.name)
        return Response(data, status, media_type="application/octet-stream")

    def _desk(self) -> FrontDesk:
        if self.parts.front is None:
            raise OperationFault("headquarters is starting; ask another one")
        return self.parts.front

    async def copy(self, call: Call) -> Response:
        held = call.request.query_params.get("held", "")
        if self.parts.acting() and self.parts.keeper is None:
            return Response(b"", 204)  # nobody is named who could open one
        try:
            transfer = self.parts.copies.give(call.node, bytes.fromhex(held))
        except ValueError as error:
            raise PeerFault("held is a digest, in hex") from error
        return transfer or Response(b"", 204)

    # --- Access ----------------------------------------------------------------------------------
    async def usage(self, call: Call) -> UsageReceipt:
        assert call.row is not None
        return await self.parts.access.usage.take(call.row, call.body)

    async def subscription(self, call: Call) -> SubscriptionView:
        self._refusals.check(call.source)
        try:
            return await self.parts.access.fetch(call.request.path_params["token"])
        except PeerFault:
            self._refusals.spend(call.source)
            raise

    async def subscribe(self, call: Call) -> Response:
        """As clients fetch it; members without a front of their own come here."""
        answer = await self._subscriptions.respond(call.request.scope)
        if answer.status == 404:
            raise PeerFault("no such subscription", code="not-found")
        return Response(answer.body, answer.status, dict(answer.headers))


HANDLERS: Final[dict[str, Handler]] = {
    "root": Api.root,
    "about": Api.about,
    "standing": Api.standing,
    "join": Api.join,
    "standby": Api.standby,
    "apply": Api.apply,
    "application": Api.application_state,
    "allocate": Api.allocate,
    "slot": Api.slot,
    "revocations": Api.revocations,
    "witnesses": Api.witnesses,
    "ticket_keys": Api.ticket_keys,
    "sign_tickets": Api.sign_tickets,
    "newest_checkpoint": Api.newest_checkpoint,
    "tile": Api.tile,
    "checkpoint": Api.checkpoint,
    "cosign": Api.cosign,
    "log_fault": Api.log_fault,
    "override": Api.override,
    "usage": Api.usage,
    "subscription": Api.subscription,
    "evidence": Api.evidence,
    "subscribe": Api.subscribe,
    "renew": Api.renew,
    "heartbeat": Api.heartbeat,
    "desired": Api.desired,
    "release": Api.release,
    "applications": Api.applications,
    "vote": Api.vote,
    "alert": Api.alert,
    "accuse": Api.accuse,
    "leave": Api.leave,
    "front_keys": Api.front_keys,
    "front": Api.front,
    "copy": Api.copy,
}


def caller_of(name: NodeName | None, row: NodeRow | None, revoked: bool = False) -> Caller:
    """Who this is. A certificate whose role is not the row's makes a stranger.

    `revoked`: the list excludes the node, or its certificate's serial or key, or its issuer.
    """
    if name is None:
        return Caller.NOBODY
    if revoked:
        return Caller.REVOKED
    if row is None or row.node != name.node or row.role.value != name.role:
        return Caller.STRANGER
    match row.state:
        case NodeState.REVOKED:
            return Caller.REVOKED
        case NodeState.RETIRED:
            return Caller.RETIRED
        case NodeState.ACTIVE:
            return _CALLERS.get(row.role, Caller.STRANGER)


_CALLERS: Final = {
    Role.RELAY: Caller.RELAY,
    Role.REPLICA: Caller.REPLICA,
    Role.ENTRY: Caller.ENTRY,
    Role.CORE: Caller.CORE,
}


def json_response(message: object, status: int = 200) -> Response:
    """A message as strict JSON travels."""
    return Response(pack_json(message), status, media_type="application/json")


async def _body(request: Request, shape: Any) -> Any:
    data = await request.body()
    if shape is bytes:
        return data
    if shape is None:
        if data:
            raise PeerFault("this call has no body")
        return None
    return unpack_json(shape, data, bytes_max=API_BODY_BYTES_MAX)


def _after(request: Request) -> int:
    """The version that the caller has."""
    return _number(request, "after", 0)


def _number(request: Request, name: str, otherwise: int) -> int:
    text = request.query_params.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise PeerFault(f"{name} is a version, in digits")
    return int(text)


async def no_such_route(_request: Request, error: Exception) -> Response:
    """A path or method that is nothing of ours, as a `Problem`."""
    assert isinstance(error, HTTPException)
    word = {404: "not-found", 405: "method"}.get(error.status_code, "http")
    return json_response(Problem(word, error.detail), error.status_code)
