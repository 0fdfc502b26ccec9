"""The operator's port: JSON over plain HTTP on loopback, for operators and their keys (`hq.gate`).

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
| GET    /admin/v1/operators          | -> OperatorItems                               |
| POST   /admin/v1/operators          | OperatorOrder -> OperatorMade                  |
| DELETE /admin/v1/operators/{name}   | -> Done                                        |
| GET    /admin/v1/pending            | -> PendingItems                                |
| POST   /admin/v1/pending/{id}/agree, /drop | -> what the action answers, Done      |

The verbs about servers are in `hq.fleet_admin` and `hq.upgrade_admin`, about providers' keys in
`hq.credential_admin`, alerts and metrics in `hq.watch_admin`, the access layer's in
`hq.access_admin`, the one about nodes that carry calls in `hq.front_admin`.
Routes that are mounted beside these (the web page) have their own login and are not behind the key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute

from holdfast.crypto.pure import base32, base32_decode
from holdfast.errors import UsageError
from holdfast.hq.access_admin import AccessVerbs
from holdfast.hq.api import no_such_route
from holdfast.hq.audit import audit_rows, head_of, verify_audit
from holdfast.hq.brain_view import FleetView
from holdfast.hq.credential_admin import CredentialVerbs
from holdfast.hq.fleet_admin import FleetVerbs
from holdfast.hq.front_admin import FrontVerbs
from holdfast.hq.gate import Gate
from holdfast.hq.join import CERTIFICATES
from holdfast.hq.keeper import Kept
from holdfast.hq.parts import Parts
from holdfast.hq.upgrade_admin import UpgradeVerbs
from holdfast.hq.verbs import EVERYBODY, READERS, RUNNERS, Asked, Verb
from holdfast.hq.verbs import Done as Done
from holdfast.hq.watch_admin import WatchVerbs
from holdfast.limits import JOIN_TOKEN_S_MAX
from holdfast.limits.trust import TICKET_GRANT_S_MAX
from holdfast.logic.audit import AUDIT_HEAD, ExportLine, export_line
from holdfast.logic.fleet.model import OPERATOR, NodeId, Role, Version
from holdfast.logic.fleet.rows import CertificateRow, TokenRow
from holdfast.logic.trust.admission import may_invite
from holdfast.logic.trust.join import token_hash
from holdfast.rim.https import EXCEPTION_HANDLERS
from holdfast.wire.codec import Message
from holdfast.wire.hq import ApplicationList

AUDIT_PAGE: Final = 500


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
    credentials_due: tuple[str, ...] = ()
    """Providers whose key is to be rotated."""


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

    def __init__(self, parts: Parts, gate: Gate, view: Callable[[], FleetView]) -> None:
        self._parts = parts
        self._gate = gate
        self._watch = WatchVerbs(parts, view)
        self.login_link: Callable[[], str] | None = None

    def application(self, mounted: Sequence[BaseRoute] = ()) -> Starlette:
        """The ASGI application, `mounted` after our own routes."""
        handlers = {**EXCEPTION_HANDLERS, HTTPException: no_such_route}
        routes = [*self._gate.routes(self.verbs()), self._gate.alias("/metrics", "GET /metrics")]
        return Starlette(routes=[*routes, *mounted], exception_handlers=handlers)

    def verbs(self) -> Sequence[Verb]:
        """The table: who may do what."""
        return (
            Verb("GET", "/status", EVERYBODY, self.status),
            Verb("GET", "/fleet", EVERYBODY, self.fleet),
            Verb("POST", "/launch", RUNNERS, self.launch, Launch),
            Verb("POST", "/confirm-unfreeze", RUNNERS, self.confirm),
            Verb("GET", "/tokens", READERS, self.tokens),
            Verb("POST", "/tokens", RUNNERS, self.create_token, TokenOrder),
            Verb("POST", "/grants", RUNNERS, self.grant, GrantOrder),
            Verb("DELETE", "/tokens/{hash}", RUNNERS, self.revoke_token),
            Verb("POST", "/revoke", RUNNERS, self.revoke, RevokeOrder, second=True),
            Verb("GET", "/certificates", READERS, self.certificates),
            Verb("GET", "/applications", READERS, self.applications),
            Verb("POST", "/applications/{id}/approve", RUNNERS, self.approve, Answer),
            Verb("POST", "/applications/{id}/decline", RUNNERS, self.decline, Answer),
            Verb("GET", "/audit", READERS, self.audit),
            Verb("GET", "/audit/verify", READERS, self.verify),
            Verb("GET", "/snapshots", READERS, self.snapshots),
            Verb("POST", "/login-link", READERS, self.link),
            *FleetVerbs(self._parts).verbs(),
            *CredentialVerbs(self._parts).verbs(),
            *self._watch.verbs(),
            *UpgradeVerbs(self._parts).verbs(),
            *self._access_verbs().verbs(),
            *FrontVerbs(self._parts).verbs(),
        )

    def _access_verbs(self) -> AccessVerbs:
        async def left(node: NodeId, reason: str) -> None:
            await self._parts.acting().left(node, reason)

        return AccessVerbs(self._parts.access, left)

    # --- The fleet -------------------------------------------------------------------------------
    async def status(self, _asked: Asked, _body: Any) -> Status:
        parts = self._parts
        view = parts.brain.view() if parts.brain is not None else None
        audit = head_of(await parts.store.get(AUDIT_HEAD))
        certificates = await parts.store.range(CERTIFICATES)
        tree = parts.log.tree
        return Status(
            network=parts.authority.network.hex(),
            domain=parts.authority.domain,
            node=base32(parts.authority.node),
            leading=parts.brain is not None and not parts.brain.deposed.is_set(),
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
            credentials_due=await parts.credentials.due(),
        )

    async def fleet(self, _asked: Asked, _body: Any) -> msgspec.Struct:
        return self._parts.acting().view()

    async def launch(self, _asked: Asked, body: Launch) -> Done:
        regions = body.regions or self._parts.config.regions
        if not regions:
            raise UsageError("no region given and none in hq.json")
        await self._parts.acting().launch(regions)
        return Done(",".join(regions))

    async def confirm(self, asked: Asked, _body: Any) -> Done:
        brain = self._parts.acting()
        if brain.view().freeze is None:
            raise UsageError("nothing is frozen, so nothing waits for your word")
        await brain.confirm(asked.author)
        return Done("fleet")

    # --- Trust -----------------------------------------------------------------------------------
    async def tokens(self, _asked: Asked, _body: Any) -> TokenItems:
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

    async def create_token(self, asked: Asked, body: TokenOrder) -> TokenMade:
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
            "token.created", token.name, hash=hashed, owner=body.owner, author=asked.author
        )
        return TokenMade(str(token), hashed, token.name, token.role, float(token.expires_at))

    async def grant(self, _asked: Asked, body: GrantOrder) -> GrantMade:
        made = await self._parts.tickets.grant(body.kind, body.tickets, body.member, body.life_s)
        return GrantMade(str(made), made.kind, made.tickets, made.expires_at)

    async def revoke_token(self, asked: Asked, _body: Any) -> Done:
        row = await self._parts.tokens.revoke(asked.path_params["hash"])
        await self._parts.audit.line("token.revoked", row.name, author=asked.author)
        return Done(row.name)

    async def revoke(self, _asked: Asked, body: RevokeOrder) -> Done:
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

    async def certificates(self, _asked: Asked, _body: Any) -> CertificateItems:
        reply = await self._parts.store.range(CERTIFICATES)
        rows = [msgspec.msgpack.decode(kv.value, type=CertificateRow) for kv in reply.items]
        rows.sort(key=lambda row: row.issued_at)
        return CertificateItems(
            tuple(
                CertificateItem(row.serial, base32(row.node), row.issued_at, row.expires_at)
                for row in rows
            )
        )

    async def applications(self, _asked: Asked, _body: Any) -> ApplicationList:
        return ApplicationList(await self._parts.applications.items())

    async def approve(self, asked: Asked, body: Answer) -> Done:
        id = asked.path_params["id"]
        row = await self._parts.applications.approve(id, asked.author, body.reason)
        return Done(row.owner)

    async def decline(self, asked: Asked, body: Answer) -> Done:
        id = asked.path_params["id"]
        row = await self._parts.applications.decline(id, asked.author, body.reason)
        return Done(row.owner)

    # --- The log ---------------------------------------------------------------------------------
    async def audit(self, asked: Asked, _body: Any) -> AuditPage:
        text = asked.query_params.get("after", "0")
        if not text.isdecimal() or len(text) > 16:
            raise UsageError("after is a sequence number")
        lines: list[ExportLine] = []
        async for row in audit_rows(self._parts.store, int(text)):
            lines.append(export_line(row))
            if len(lines) == AUDIT_PAGE:
                break
        head = head_of(await self._parts.store.get(AUDIT_HEAD))
        return AuditPage(tuple(lines), head.sequence)

    async def verify(self, _asked: Asked, _body: Any) -> AuditVerdict:
        head, breaks = await verify_audit(self._parts.store)
        problems = tuple(f"row {item.sequence}: {item.problem}" for item in breaks)
        return AuditVerdict(not breaks, head.sequence, head.hash.hex(), problems)

    async def snapshots(self, _asked: Asked, _body: Any) -> SnapshotsView:
        parts = self._parts
        parts.acting()
        if parts.keeper is None:
            raise UsageError(
                "no snapshots are taken: name who may open them (holdfast hq snapshots set), and "
                "restart headquarters"
            )
        locator = await parts.snapshot_locator() if parts.snapshot_locator is not None else ""
        return SnapshotsView(tuple(parts.keeper.kept.values()), str(locator))

    async def link(self, _asked: Asked, _body: Any) -> Link:
        if self.login_link is None:
            raise UsageError("no web page is served here")
        return Link(self.login_link())
