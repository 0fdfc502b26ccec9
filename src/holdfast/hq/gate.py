"""The gate of the operator's port: who calls, whether the table lets them, what waits for a second.

What a named operator changes, asks for and is refused is in the audit log under that name; so is
what needs two, whoever does it.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from holdfast.errors import PeerFault
from holdfast.hq.api import json_response
from holdfast.hq.audit import AuditLog
from holdfast.hq.openapi import openapi
from holdfast.hq.operators import (
    OperatorItem,
    OperatorItems,
    OperatorMade,
    OperatorOrder,
    Operators,
    PendingItem,
    PendingItems,
    PendingRow,
    Waiting,
)
from holdfast.hq.verbs import (
    BASE,
    EVERYBODY,
    LOCAL,
    OWNERS,
    READERS,
    RUNNERS,
    Asked,
    Done,
    OperatorRole,
    Verb,
)
from holdfast.limits import API_BODY_BYTES_MAX
from holdfast.limits.control import BODY_LOGGED_BYTES, REFUSALS_TOLD_MAX
from holdfast.wire.codec import unpack_json

ACCEPTED: Final = 202
"""The status of a reply that says: this waits for a second person."""
_BEARER: Final = "Bearer "


class Document(msgspec.Struct, frozen=True):
    """OpenAPI 3.1, as it stands."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, Any]
    components: dict[str, Any]
    security: list[dict[str, list[str]]]


class Gate:
    """Turns verbs into routes. `key` is the one in `admin.json`."""

    def __init__(self, operators: Operators, audit: AuditLog, key: str) -> None:
        self._operators = operators
        self._audit = audit
        self._key = f"{_BEARER}{key}".encode()
        self.verbs: dict[str, Verb] = {}
        self._document: dict[str, Any] = {}
        self._told: set[tuple[str, str]] = set()

    def routes(self, verbs: Sequence[Verb]) -> list[BaseRoute]:
        """One for each verb, and for those of operators and of what waits."""
        for verb in (*verbs, *self._own()):
            self.verbs[verb.name] = verb
        self._document = openapi(self.verbs.values())
        return [
            Route(BASE + verb.path, self._endpoint(verb), methods=[verb.method])
            for verb in self.verbs.values()
        ]

    def alias(self, path: str, name: str) -> BaseRoute:
        """The same verb at a path where programs of others look for it."""
        verb = self.verbs[name]
        return Route(path, self._endpoint(verb), methods=[verb.method])

    def _own(self) -> Sequence[Verb]:
        return (
            Verb("GET", "/openapi.json", EVERYBODY, self._openapi),
            Verb("GET", "/operators", READERS, self._list),
            Verb("POST", "/operators", OWNERS, self._add, OperatorOrder, second=True),
            Verb("DELETE", "/operators/{name}", OWNERS, self._remove, second=True),
            Verb("GET", "/pending", READERS, self._waiting),
            Verb("POST", "/pending/{id}/agree", RUNNERS, self._agree),
            Verb("POST", "/pending/{id}/drop", RUNNERS, self._drop),
        )

    def _endpoint(self, verb: Verb) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            author, role = await self._who(request.headers.get("authorization", ""))
            if role not in verb.roles:
                await self._refused(author, role, verb)
                raise PeerFault(f"{author} is {role} and may not {verb.name}", code="forbidden")
            data = await request.body()
            asked = Asked(author, role, dict(request.path_params), dict(request.query_params))
            body = _shaped(verb, data)
            if verb.second and author != LOCAL:
                return json_response(await self._defer(verb, asked, data), ACCEPTED)
            reply = await self._do(verb, asked, body)
            return reply if isinstance(reply, Response) else json_response(reply)

        return endpoint

    async def _who(self, header: str) -> tuple[str, OperatorRole]:
        """(name, role) of whoever holds this key. Raises PeerFault."""
        if hmac.compare_digest(header.encode(), self._key):
            return LOCAL, OperatorRole.OWNER
        row = await self._operators.find(header.removeprefix(_BEARER))
        if row is None:
            raise PeerFault("wrong or missing key; it is in admin.json", code="unauthorized")
        return row.name, row.role

    async def names(self, header: str) -> bool:
        """Whether this is the key of a named operator; the one in `admin.json` is not."""
        return await self._operators.find(header.removeprefix(_BEARER)) is not None

    async def _do(self, verb: Verb, asked: Asked, body: Any) -> msgspec.Struct | Response:
        reply = await verb.handler(asked, body)
        assert isinstance(reply, msgspec.Struct | Response), "handlers answer with messages"
        if verb.changes and (verb.second or asked.author != LOCAL):
            subject = ",".join(asked.path_params.values())
            await self._audit.line("operator.did", asked.author, call=verb.name, about=subject)
        return reply

    async def _refused(self, author: str, role: OperatorRole, verb: Verb) -> None:
        """Told once: who asks a thousand times shall not fill the log."""
        if (author, verb.name) in self._told or len(self._told) >= REFUSALS_TOLD_MAX:
            return
        self._told.add((author, verb.name))
        await self._audit.line("operator.refused", author, role=str(role), call=verb.name)

    # --- Two persons -----------------------------------------------------------------------------
    async def _others(self, verb: Verb, author: str) -> list[str]:
        """Who else may do this; whoever owns the disk always may."""
        rows = await self._operators.rows()
        named = [row.name for row in rows if row.role in verb.roles and row.name != author]
        return [*named, LOCAL]

    async def _defer(self, verb: Verb, asked: Asked, data: bytes) -> Waiting:
        row = await self._operators.defer(verb.name, asked.author, dict(asked.path_params), data)
        subject = ",".join(asked.path_params.values())
        await self._audit.line(
            "operator.asked",
            asked.author,
            call=verb.name,
            pending=row.id,
            about=subject,
            body=data[:BODY_LOGGED_BYTES].decode("utf-8", "replace"),
        )
        others = await self._others(verb, asked.author)
        return Waiting(row.id, f"the word of {' or '.join(others)}: holdfast hq agree {row.id}")

    async def _find(self, id: str) -> PendingRow:
        for row in await self._operators.pending():
            if row.id == id:
                return row
        raise PeerFault("nothing of that id waits", code="not-found")

    async def _agree(self, asked: Asked, _body: Any) -> msgspec.Struct | Response:
        row = await self._find(asked.path_params["id"])
        verb = self.verbs[row.verb]
        if row.author == asked.author:
            raise PeerFault("a second person must agree, not the first again", code="forbidden")
        if asked.role not in verb.roles:
            raise PeerFault(
                f"{asked.author} is {asked.role} and may not {row.verb}", code="forbidden"
            )
        first = Asked(row.author, await self._still(row, verb), row.path_params)
        row = await self._operators.take(row.id)
        detail = {"call": row.verb, "asked_by": row.author, "pending": row.id}
        await self._audit.line("operator.agreed", asked.author, **detail)
        return await self._do(verb, first, _shaped(verb, row.body))

    async def _still(self, row: PendingRow, verb: Verb) -> OperatorRole:
        """The role of who asked: they may it today too, with the key they had. Raises PeerFault."""
        for known in await self._operators.rows():
            same = known.name == row.author and known.added_at <= row.asked_at
            if same and known.role in verb.roles:
                return known.role
        raise PeerFault(f"{row.author} may not {row.verb} any more", code="forbidden")

    async def _drop(self, asked: Asked, _body: Any) -> Done:
        row = await self._find(asked.path_params["id"])
        is_subject = asked.author in row.path_params.values()
        may = asked.role in self.verbs[row.verb].roles and not is_subject
        if asked.author != row.author and not may:
            raise PeerFault(f"{asked.author} has no say in this", code="forbidden")
        row = await self._operators.take(row.id)
        await self._audit.line("operator.dropped", asked.author, call=row.verb, pending=row.id)
        return Done(row.verb)

    async def _waiting(self, _asked: Asked, _body: Any) -> PendingItems:
        return PendingItems(
            tuple(
                PendingItem(
                    id=row.id,
                    verb=row.verb,
                    subject=",".join(row.path_params.values()),
                    body=row.body.decode("utf-8", "replace"),
                    author=row.author,
                    asked_at=row.asked_at,
                    expires_at=row.expires_at,
                )
                for row in await self._operators.pending()
            )
        )

    async def _openapi(self, _asked: Asked, _body: Any) -> msgspec.Struct:
        return Document(**self._document)

    # --- Operators -------------------------------------------------------------------------------
    async def _list(self, _asked: Asked, _body: Any) -> OperatorItems:
        return OperatorItems(
            tuple(
                OperatorItem(row.name, row.role, row.added_at, row.added_by)
                for row in await self._operators.rows()
            )
        )

    async def _add(self, asked: Asked, body: OperatorOrder) -> OperatorMade:
        made = await self._operators.add(body, asked.author)
        await self._audit.line(
            "operator.added", body.name, role=str(body.role), author=asked.author
        )
        return made

    async def _remove(self, asked: Asked, _body: Any) -> Done:
        name = asked.path_params["name"]
        await self._operators.remove(name)
        await self._audit.line("operator.removed", name, author=asked.author)
        return Done(name)


def _shaped(verb: Verb, data: bytes) -> Any:
    return unpack_json(verb.body, data, bytes_max=API_BODY_BYTES_MAX) if verb.body else None
