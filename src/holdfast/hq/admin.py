"""The operator's port: JSON over plain HTTP on loopback, for whoever holds the key in `admin.json`.

| method and path                     | shape                                          |
|-------------------------------------|------------------------------------------------|
| GET    /admin/v1/status             | -> Status                                      |
| GET    /admin/v1/fleet              | -> hq.brain_view.FleetView                     |
| POST   /admin/v1/launch             | Launch -> Done                                 |
| POST   /admin/v1/confirm-unfreeze   | -> Done                                        |
| GET    /admin/v1/tokens             | -> TokenItems                                  |
| POST   /admin/v1/tokens             | TokenOrder -> TokenMade                        |
| POST   /admin/v1/grants             | GrantOrder -> GrantMade                        |
| DELETE /admin/v1/tokens/{hash}      | -> Done                                        |
| POST   /admin/v1/revoke             | RevokeOrder -> Done                            |
| GET    /admin/v1/certificates       | -> CertificateItems                            |
| GET    /admin/v1/applications       | -> wire.hq.ApplicationList                     |
| POST   /admin/v1/applications/{id}/approve, /decline | Answer -> Done                |
| GET    /admin/v1/audit?after=N      | -> AuditPage (at most 500 lines)               |
| GET    /admin/v1/audit/verify       | -> AuditVerdict                                |
| GET    /admin/v1/snapshots          | -> SnapshotsView                               |
| POST   /admin/v1/login-link         | -> Link: one-time link to the web page         |

The access layer's verbs are in `hq.access_admin`.
Routes that are mounted beside these (the web page) have their own login and are not behind the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from holdfast.crypto.pure import base32, base32_decode
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.access_admin import AccessVerbs
from holdfast.hq.api import json_response, no_such_route
from holdfast.hq.audit import audit_rows, head_of, verify_audit
from holdfast.hq.join import CERTIFICATES
from holdfast.hq.keeper import Kept
from holdfast.hq.parts import Parts
from holdfast.limits import API_BODY_BYTES_MAX, JOIN_TOKEN_S_MAX
from holdfast.limits.trust import TICKET_GRANT_S_MAX
from holdfast.logic.audit import AUDIT_HEAD, ExportLine, export_line
from holdfast.logic.fleet.model import OPERATOR, NodeId, Role, Version
from holdfast.logic.fleet.rows import CertificateRow, TokenRow
from holdfast.logic.trust.admission import may_invite
from holdfast.logic.trust.join import token_hash
from holdfast.rim.https import EXCEPTION_HANDLERS
from holdfast.wire.codec import Message, unpack_json
from holdfast.wire.hq import ApplicationList

AUDIT_PAGE: Final = 500
AUTHOR: Final = "operator"
Handler = Callable[[Request, Any], Awaitable[object]]


class Status(Message):
    """One HQ process at a glance. Times are Unix seconds."""

    network: str
    domain: str
    node: str
    leading: bool
    term: int
    frozen: bool
    api: tuple[str, ...]
    dns: tuple[str, ...]
    admission: str
    intermediate_expires_at: int
    revision: int
    servers: int
    nodes: int
    slots: int
    groups: int
    certificates: int
    log_size: int
    log_root: str
    audit_sequence: int
    audit_hash: str
    revocations: Version


class Done(Message):
    """It is done."""

    subject: str = ""


class Launch(Message):
    """The configured regions when empty."""

    regions: tuple[str, ...] = ()


class TokenOrder(Message):
    role: Role
    region: str
    owner: str = OPERATOR
    provider: str = ""
    name: str = ""
    cell: str = ""
    life_s: float = JOIN_TOKEN_S_MAX


class TokenMade(Message):
    token: str
    hash: str
    name: str
    role: Role
    expires_at: float


class TokenItem(Message):
    hash: str
    name: str
    role: Role
    region: str
    owner: str
    intent: str
    expires_at: float
    used_by: str


class TokenItems(Message):
    items: tuple[TokenItem, ...]


class GrantOrder(Message):
    """So many tickets of a class, for a member by name."""

    kind: str
    tickets: int
    member: str = ""
    life_s: float = TICKET_GRANT_S_MAX


class GrantMade(Message):
    grant: str
    kind: str
    tickets: int
    expires_at: int


class RevokeOrder(Message):
    """One of `node` (base32), `serial` (decimal), `key` (SHA-256 of the SPKI, hex)."""

    reason: str
    node: str = ""
    serial: str = ""
    key: str = ""


class CertificateItem(Message):
    serial: str
    node: str
    issued_at: float
    expires_at: int


class CertificateItems(Message):
    items: tuple[CertificateItem, ...]


class Answer(Message):
    reason: str = ""


class AuditPage(Message):
    lines: tuple[ExportLine, ...]
    sequence: int
    """Of the newest line there is."""


class AuditVerdict(Message):
    ok: bool
    sequence: int
    hash: str
    problems: tuple[str, ...]


class SnapshotsView(Message):
    """How each shelf stands, and the locator of the pool's, empty where the pool keeps none."""

    shelves: tuple[Kept, ...]
    locator: str


class Link(Message):
    url: str


class Admin:
    """The handlers. `login_link` is there when a web page is mounted."""

    def __init__(self, parts: Parts, key: str) -> None:
        self._parts = parts
        self._key = f"Bearer {key}".encode()
        self.login_link: Callable[[], str] | None = None

    def application(self, mounted: Sequence[BaseRoute] = ()) -> Starlette:
        """The ASGI application, `mounted` after our own routes."""

        def route(method: str, path: str, handler: Handler, body: Any = None) -> Route:
            endpoint = self._endpoint(handler, body)
            return Route("/admin/v1" + path, endpoint, methods=[method])

        routes: list[BaseRoute] = [
            route("GET", "/status", self.status),
            route("GET", "/fleet", self.fleet),
            route("POST", "/launch", self.launch, Launch),
            route("POST", "/confirm-unfreeze", self.confirm),
            route("GET", "/tokens", self.tokens),
            route("POST", "/tokens", self.create_token, TokenOrder),
            route("POST", "/grants", self.grant, GrantOrder),
            route("DELETE", "/tokens/{hash}", self.revoke_token),
            route("POST", "/revoke", self.revoke, RevokeOrder),
            route("GET", "/certificates", self.certificates),
            route("GET", "/applications", self.applications),
            route("POST", "/applications/{id}/approve", self.approve, Answer),
            route("POST", "/applications/{id}/decline", self.decline, Answer),
            route("GET", "/audit", self.audit),
            route("GET", "/audit/verify", self.verify),
            route("GET", "/snapshots", self.snapshots),
            route("POST", "/login-link", self.link),
            *(route(*verb) for verb in self._access_verbs().verbs()),
        ]
        handlers = {**EXCEPTION_HANDLERS, HTTPException: no_such_route}
        return Starlette(routes=[*routes, *mounted], exception_handlers=handlers)

    def _access_verbs(self) -> AccessVerbs:
        async def left(node: NodeId, reason: str) -> None:
            await self._parts.acting().left(node, reason)

        return AccessVerbs(self._parts.access, left)

    def _endpoint(self, handler: Handler, shape: Any) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            given = request.headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, self._key):
                raise PeerFault("wrong or missing key; it is in admin.json", code="unauthorized")
            data = await request.body()
            body = None
            if shape is not None:
                body = unpack_json(shape, data, bytes_max=API_BODY_BYTES_MAX)
            return json_response(await handler(request, body))

        return endpoint

    # --- The fleet -------------------------------------------------------------------------------
    async def status(self, _request: Request, _body: Any) -> Status:
        parts = self._parts
        view = parts.brain.view() if parts.brain is not None else None
        audit = head_of(await parts.store.get(AUDIT_HEAD))
        certificates = await parts.store.range(CERTIFICATES)
        tree = parts.log.tree
        return Status(
            network=parts.authority.network.hex(),
            domain=parts.authority.domain,
            node=base32(parts.authority.node),
            leading=parts.brain is not None,
            term=parts.desired.term,
            frozen=view is not None and view.frozen,
            api=parts.api_addresses,
            dns=parts.dns_addresses,
            admission=parts.config.admission.value,
            intermediate_expires_at=parts.authority.expires_at,
            revision=await parts.store.revision(),
            servers=len(view.servers) if view else 0,
            nodes=parts.desired.nodes_count,
            slots=parts.desired.slots_count,
            groups=parts.desired.groups_count,
            certificates=len(certificates.items),
            log_size=len(tree),
            log_root=tree.root().hex(),
            audit_sequence=audit.sequence,
            audit_hash=audit.hash.hex(),
            revocations=parts.revocations.entries.version,
        )

    async def fleet(self, _request: Request, _body: Any) -> msgspec.Struct:
        return self._parts.acting().view()

    async def launch(self, _request: Request, body: Launch) -> Done:
        regions = body.regions or self._parts.config.regions
        if not regions:
            raise UsageError("no region given and none in hq.json")
        await self._parts.acting().launch(regions)
        return Done(",".join(regions))

    async def confirm(self, _request: Request, _body: Any) -> Done:
        await self._parts.acting().confirm(AUTHOR)
        return Done("fleet")

    # --- Trust -----------------------------------------------------------------------------------
    async def tokens(self, _request: Request, _body: Any) -> TokenItems:
        return TokenItems(
            tuple(
                TokenItem(
                    hash=hash_hex,
                    name=row.name,
                    role=row.role,
                    region=row.region,
                    owner=row.owner,
                    intent=row.intent,
                    expires_at=row.expires_at,
                    used_by=base32(row.used_by) if row.used_by else "",
                )
                for hash_hex, row in await self._parts.tokens.items()
            )
        )

    async def create_token(self, _request: Request, body: TokenOrder) -> TokenMade:
        if not may_invite(self._parts.config.admission):
            raise UsageError("this network admits by vote; let the machine's owner apply")
        row = TokenRow(
            role=body.role,
            name=body.name,
            region=body.region,
            provider=body.provider,
            owner=body.owner,
            cell=body.cell,
            expires_at=self._parts.clock.wall() + body.life_s,
        )
        if body.cell and body.cell not in self._parts.access.book.cells:
            raise UsageError(f"no cell {body.cell}; make it first: holdfast access cell create")
        token = await self._parts.tokens.create(row)
        hashed = token_hash(token.secret).hex()
        await self._parts.audit.line(
            "token.created", token.name, hash=hashed, owner=body.owner, author=AUTHOR
        )
        return TokenMade(str(token), hashed, token.name, token.role, float(token.expires_at))

    async def grant(self, _request: Request, body: GrantOrder) -> GrantMade:
        made = await self._parts.tickets.grant(body.kind, body.tickets, body.member, body.life_s)
        return GrantMade(str(made), made.kind, made.tickets, made.expires_at)

    async def revoke_token(self, request: Request, _body: Any) -> Done:
        row = await self._parts.tokens.revoke(request.path_params["hash"])
        await self._parts.audit.line("token.revoked", row.name, author=AUTHOR)
        return Done(row.name)

    async def revoke(self, _request: Request, body: RevokeOrder) -> Done:
        try:
            node, key = base32_decode(body.node), bytes.fromhex(body.key)
        except ValueError as error:
            raise UsageError("a node is named in base32, a key by 64 hex digits") from error
        if (node and len(node) != 32) or (key and len(key) != 32):
            raise UsageError("a node is named by 52 letters, a key by 64 hex digits")
        await self._parts.revocations.revoke(
            node=node, serial=body.serial, key_hash=key, reason=body.reason
        )
        return Done(body.node or body.serial or body.key)

    async def certificates(self, _request: Request, _body: Any) -> CertificateItems:
        reply = await self._parts.store.range(CERTIFICATES)
        rows = [msgspec.msgpack.decode(kv.value, type=CertificateRow) for kv in reply.items]
        rows.sort(key=lambda row: row.issued_at)
        return CertificateItems(
            tuple(
                CertificateItem(row.serial, base32(row.node), row.issued_at, row.expires_at)
                for row in rows
            )
        )

    async def applications(self, _request: Request, _body: Any) -> ApplicationList:
        return ApplicationList(await self._parts.applications.items())

    async def approve(self, request: Request, body: Answer) -> Done:
        id = request.path_params["id"]
        row = await self._parts.applications.approve(id, AUTHOR, body.reason)
        return Done(row.owner)

    async def decline(self, request: Request, body: Answer) -> Done:
        id = request.path_params["id"]
        row = await self._parts.applications.decline(id, AUTHOR, body.reason)
        return Done(row.owner)

    # --- The log ---------------------------------------------------------------------------------
    async def audit(self, request: Request, _body: Any) -> AuditPage:
        text = request.query_params.get("after", "0")
        if not text.isdecimal() or len(text) > 16:
            raise UsageError("after is a sequence number")
        lines: list[ExportLine] = []
        async for row in audit_rows(self._parts.store, int(text)):
            lines.append(export_line(row))
            if len(lines) == AUDIT_PAGE:
                break
        head = head_of(await self._parts.store.get(AUDIT_HEAD))
        return AuditPage(tuple(lines), head.sequence)

    async def verify(self, _request: Request, _body: Any) -> AuditVerdict:
        head, breaks = await verify_audit(self._parts.store)
        problems = tuple(f"row {item.sequence}: {item.problem}" for item in breaks)
        return AuditVerdict(not breaks, head.sequence, head.hash.hex(), problems)

    async def snapshots(self, _request: Request, _body: Any) -> SnapshotsView:
        parts = self._parts
        parts.acting()
        if parts.keeper is None:
            raise UsageError("no snapshots are taken; name recipients: holdfast hq snapshots set")
        locator = await parts.snapshot_locator() if parts.snapshot_locator is not None else ""
        return SnapshotsView(tuple(parts.keeper.kept.values()), str(locator))

    async def link(self, _request: Request, _body: Any) -> Link:
        if self.login_link is None:
            raise UsageError("no web page is served here")
        return Link(self.login_link())
