"""Subscriptions as clients fetch them: `GET /sub/<token>` and `GET /sub/<token>/<format>`.

A body is the same for all devices of a cell but for the credential, so it is rendered once for each
kind of client and state of a cell (`logic.access.render`), kept as long as cell and entries are
what they were, and filled in for each device. A fetch costs one hash for the token and one for the
validator. What the answer says of usage stands in headers, which are made each time.

The token is the only secret of a URL and is in no log: this module writes none, the servers under
it keep no access log. A token that is nobody's is a 404 like any other.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import HoldfastError, OperationFault
from holdfast.hq.access import Access
from holdfast.hq.rates import Rates
from holdfast.hq.subscription_page import page
from holdfast.limits.access import CLIENT_ID_BYTES_MAX, SKELETONS_MAX
from holdfast.logic.access.model import Cell, Device, Entry
from holdfast.logic.access.render import CREDENTIAL_BLANK, Client, Format, Skeleton, fill, skeleton
from holdfast.logic.access.render.headers import etag, face_headers, matches, userinfo
from holdfast.logic.access.render.negotiate import client_of
from holdfast.logic.access.render.notice import ELSEWHERE, NOBODY, shown
from holdfast.logic.access.subscription import SubscriptionState, Usage
from holdfast.rim.clock import Clock

PREFIX: Final = "/sub/"
RETRY_AFTER_S: Final = 60
Headers = list[tuple[str, str]]


class Ask(msgspec.Struct, frozen=True):
    """A request, as far as it matters here. `url` is where the client believes to be, without the
    format; `format` is what the path names, if anything."""

    token: str
    format: Format | None = None
    accept: str = ""
    user_agent: str = ""
    language: str = ""
    if_none_match: str = ""
    client_id: str = ""
    """`x-hwid`: what some clients tell of the machine they run on."""
    url: str = ""
    source: str = ""


class Answer(msgspec.Struct, frozen=True):
    """Status, head and body."""

    status: int
    headers: Headers
    body: bytes = b""


class _Kept(msgspec.Struct, frozen=True):
    """A skeleton, and what it was made of."""

    cell: Cell
    entries: Sequence[Entry]
    skeleton: Skeleton | None
    """None for a cell that has no entry."""


_Key = tuple[str, SubscriptionState, Client, str]


class Subscriptions:
    """Answers. One for each HQ process."""

    def __init__(self, access: Access, clock: Clock, *, rate: float = 50.0) -> None:
        """`rate`: unknown tokens a second that are looked up in the store, of all sources."""
        self._access = access
        self._clock = clock
        self._kept: dict[_Key, _Kept] = {}
        self._heads: dict[Client, Headers] = {}
        self._unknown = Rates(clock, rate, 4 * rate, crowd=1.0)

    async def answer(self, ask: Ask) -> Answer:
        """The answer to a fetch. Raises OperationFault when the store is away."""
        book, at = self._access.book, self._clock.wall()
        device = book.device_with(ask.token) or await self._look_up(ask)
        if device is None or device.member not in book.members or device.cell not in book.cells:
            return _plain(404, "not found")
        client = client_of(ask.format, ask.accept, ask.user_agent)
        client_hash = _client_hash(device, ask.client_id)
        elsewhere = bool(device.client and client_hash and device.client != client_hash)
        state, cell = book.state(device), book.cells[device.cell]
        if client.format is Format.HTML:
            body = self._page(device, state, ask, elsewhere).encode()
            return self._answer(ask, device, client, _HTML, body)
        rendered = self._skeleton(device, cell, state, client, ELSEWHERE if elsewhere else "")
        if rendered is None:
            return _plain(503, "no server right now", [("retry-after", str(RETRY_AFTER_S))])
        served = state is SubscriptionState.ACTIVE and not elsewhere
        body = fill(rendered, device.credential if served else NOBODY)
        written = self._access.fetches.note(device, cell, at, client_hash) if served else None
        if written is not None:
            await written
        return self._answer(ask, device, client, rendered.media_type, body)

    def _answer(
        self, ask: Ask, device: Device, client: Client, media_type: str, body: bytes
    ) -> Answer:
        member = self._access.book.members[device.member]
        usage = self._access.book.usage.get(member.id, Usage())
        tag = etag(body)
        headers = [
            *self._head(client),
            ("subscription-userinfo", userinfo(usage, member.quota_bytes, member.expires_at)),
            ("etag", tag),
        ]
        if client.format is Format.HTML:
            headers.append(("content-security-policy", _POLICY))
        if ask.if_none_match and matches(ask.if_none_match, tag):
            return Answer(304, headers)
        return Answer(200, [("content-type", media_type), *headers], body)

    async def _look_up(self, ask: Ask) -> Device | None:
        self._unknown.charge(ask.source)
        return await self._access.book.find_device(ask.token)

    def _skeleton(
        self, device: Device, cell: Cell, state: SubscriptionState, client: Client, notice: str
    ) -> Skeleton | None:
        book = self._access.book
        entries = book.entries(cell.id)
        key = (cell.id, state, client, notice)
        kept = self._kept.get(key)
        if kept is None or kept.cell is not cell or kept.entries != entries:
            view = shown(book.view(device), client, notice)
            if view.credential != NOBODY:
                view = msgspec.structs.replace(view, credential=CREDENTIAL_BLANK)
            made = skeleton(view, client) if view.endpoints else None
            if len(self._kept) >= SKELETONS_MAX:
                self._kept.clear()
            kept = self._kept[key] = _Kept(cell, entries, made)
        return kept.skeleton

    def _page(self, device: Device, state: SubscriptionState, ask: Ask, elsewhere: bool) -> str:
        book = self._access.book
        member = book.members[device.member]
        return page(
            title=book.face.title,
            url=ask.url,
            state=state,
            elsewhere=elsewhere,
            usage=book.usage.get(member.id, Usage()),
            quota_bytes=member.quota_bytes,
            expires_at=member.expires_at,
            devices=len(book.devices_of_member(member.id)),
            devices_max=member.devices_max,
            language=ask.language,
        )

    def _head(self, client: Client) -> Headers:
        if client not in self._heads:
            face = self._access.book.face
            self._heads[client] = face_headers(
                face.title, face.update_h, face.page_url, face.support_url, client
            )
        return self._heads[client]


_HTML: Final = "text/html; charset=utf-8"
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
Scope = Any
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class SubscriptionApp:
    """The ASGI application, for a plain port behind a front with a public certificate."""

    def __init__(self, subscriptions: Subscriptions, base_url: str = "") -> None:
        """`base_url`: what members reach it by; `https://` and the Host header when empty."""
        self._subscriptions = subscriptions
        self._base_url = base_url.rstrip("/")

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        assert scope["type"] == "http", "served without lifespan and websockets"
        answer = await self.respond(scope)
        length = ("content-length", str(len(answer.body)))
        headers = [*answer.headers, *(() if answer.status == 304 else (length,))]
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    async def respond(self, scope: Scope) -> Answer:
        """The answer to a request; faults are answers too."""
        if scope["method"] not in ("GET", "HEAD"):
            return _plain(405, "GET only", [("allow", "GET, HEAD")])
        ask = ask_of(scope, self._base_url)
        if ask is None:
            return _plain(404, "not found")
        try:
            return await self._subscriptions.answer(ask)
        except OperationFault as fault:
            return _plain(503, str(fault), [("retry-after", str(RETRY_AFTER_S))])
        except HoldfastError as fault:
            return _plain(429, str(fault), [("retry-after", str(RETRY_AFTER_S))])


def ask_of(scope: Scope, base_url: str = "") -> Ask | None:
    """The request in an ASGI scope; None when its path is no subscription's."""
    path: str = scope["path"]
    token, _, name = path.removeprefix(PREFIX).partition("/")
    if not path.startswith(PREFIX) or not token:
        return None
    try:
        format = Format(unquote(name)) if name else None
    except ValueError:
        return None
    said = {key: value.decode("latin-1") for key, value in scope["headers"]}
    client = scope.get("client")
    return Ask(
        token=token,
        format=format,
        accept=said.get(b"accept", ""),
        user_agent=said.get(b"user-agent", ""),
        language=said.get(b"accept-language", ""),
        if_none_match=said.get(b"if-none-match", ""),
        client_id=said.get(b"x-hwid", "")[:CLIENT_ID_BYTES_MAX],
        url=f"{base_url or 'https://' + said.get(b'host', '')}{PREFIX}{token}",
        source=client[0] if client else "",
    )


def _client_hash(device: Device, client_id: str) -> bytes:
    """Means nothing without the device, and nothing beside another's."""
    return hash_bytes(f"{device.id} {client_id}".encode())[:16] if client_id else b""


def _plain(status: int, text: str, more: Sequence[tuple[str, str]] = ()) -> Answer:
    return Answer(status, [("content-type", "text/plain; charset=utf-8"), *more], text.encode())
