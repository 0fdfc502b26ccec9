"""Calls that came sealed, through a node: opened, done as if they had come to our own ports, and
answered under a key that only the caller has (ADR 0044).

A caller is an operator by name and key, or nobody. The key in `admin.json` is not taken here: it is
for whoever owns this disk, who acts alone. Paths are those of the operator's port and of the API,
behind the same gate and table. The operator's verbs are answered by the headquarters that leads;
another one says 503, at which the node asks the next.

A change is made once for each call id, whoever repeats it through whichever node (`hq.front_once`).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

from starlette.types import ASGIApp

from holdfast.crypto.sealedcall import open_request, seal_answer
from holdfast.errors import HoldfastError, OperationFault, PeerFault
from holdfast.hq.front_keys import FrontKeyring
from holdfast.hq.front_once import UNAVAILABLE, Once
from holdfast.hq.gate import Gate
from holdfast.hq.parts import Parts
from holdfast.hq.rates import Rates
from holdfast.hq.verbs import BASE
from holdfast.limits import API_BODY_BYTES_MAX
from holdfast.limits.front import (
    FRONT_ANSWER_CLASSES,
    FRONT_CALLS_BURST,
    FRONT_CALLS_PER_S,
    FRONT_CHANGES_BURST,
    FRONT_CHANGES_PER_S,
    FRONT_REQUEST_BYTES_MAX,
    FRONT_WINDOW_S,
)
from holdfast.rim.entropy import Entropy
from holdfast.rim.https import problem_of
from holdfast.wire.codec import pack, pack_json, unpack
from holdfast.wire.front import CALL_ID_BYTES, METHODS, FrontAnswer, FrontCall

_PATH_LETTERS_MAX: Final = 2_048


class FrontDesk:
    """`take` is called by the API, `forget` by a chore."""

    def __init__(self, parts: Parts, keys: FrontKeyring, entropy: Entropy) -> None:
        self._parts = parts
        self._clock = parts.clock
        self._entropy = entropy
        self.keys = keys
        self._calls = Rates(parts.clock, FRONT_CALLS_PER_S, FRONT_CALLS_BURST)
        self._changes = Rates(parts.clock, FRONT_CHANGES_PER_S, FRONT_CHANGES_BURST)
        self._api: ASGIApp | None = None
        self._admin: ASGIApp | None = None
        self._gate: Gate | None = None
        self._once = Once(parts.store, parts.clock, entropy)

    def open(self, api: ASGIApp, admin: ASGIApp, gate: Gate) -> None:
        """The ports whose calls are taken here too."""
        self._api, self._admin, self._gate = api, admin, gate

    async def take(self, sealed: bytes, carrier: str) -> tuple[int, bytes]:
        """(status for the node, sealed answer). Raises PeerFault, OperationFault."""
        self._calls.charge(carrier)
        try:
            opened = open_request(sealed, self.keys.mine)
        except PeerFault as fault:
            if fault.code == "front-key":
                raise OperationFault("sealed to another headquarters") from fault
            raise
        call = unpack(FrontCall, opened, bytes_max=FRONT_REQUEST_BYTES_MAX)
        if len(call.reply_key) != 32 or len(call.id) != CALL_ID_BYTES:
            raise PeerFault("a call without an id and a key for its answer")
        try:
            status, answer = await self._answer(call, carrier)
        except HoldfastError as error:
            status, answer = self._refused(call, error)
        return (UNAVAILABLE if status == UNAVAILABLE else 200), answer

    async def forget(self) -> None:
        """Forget changes that nobody can repeat any more. Raises OperationFault."""
        await self._once.forget()

    # --- One call --------------------------------------------------------------------------------
    async def _answer(self, call: FrontCall, carrier: str) -> tuple[int, bytes]:
        self._check(call)
        admin = call.path.startswith(BASE + "/")
        if admin:
            self._parts.acting()
            assert self._gate is not None
            if not await self._gate.names(call.authorization):
                self._changes.charge(carrier)
                raise PeerFault("wrong or missing key of an operator", code="unauthorized")
        if call.method == "GET":
            return self._sealed(call, await self._dispatch(call, carrier))
        if not admin:
            self._changes.charge(carrier)
        do = partial(self._dispatch, call, carrier)
        return self._sealed(call, await self._once.answer(call, do, harmless=not admin))

    def _check(self, call: FrontCall) -> None:
        late_s = self._clock.wall() - call.sent_at
        if abs(late_s) > FRONT_WINDOW_S:
            raise PeerFault(f"a call of {late_s:.0f} s ago; set your clock", code="stale")
        path = call.path
        if not (path.startswith("/") and path.isascii() and len(path) <= _PATH_LETTERS_MAX):
            raise PeerFault("a path of ours begins with / and is ASCII")
        if call.method not in METHODS or len(call.body) > API_BODY_BYTES_MAX:
            raise PeerFault("no such call")

    # --- Doing -----------------------------------------------------------------------------------
    async def _dispatch(self, call: FrontCall, carrier: str) -> FrontAnswer:
        """Our own port's answer."""
        app = self._admin if call.path.startswith(BASE + "/") else self._api
        assert app is not None, "the ports are open before nodes reach us"
        status, data = await dispatch(app, call, carrier)
        return FrontAnswer(status, data, self._clock.wall())

    def _refused(self, call: FrontCall, error: HoldfastError) -> tuple[int, bytes]:
        status, problem = problem_of(error)
        return self._sealed(call, FrontAnswer(status, pack_json(problem), self._clock.wall()))

    def _sealed(self, call: FrontCall, answer: FrontAnswer) -> tuple[int, bytes]:
        salt = self._entropy.bytes(32)
        sealed = seal_answer(pack(answer), call.reply_key, salt, FRONT_ANSWER_CLASSES)
        return answer.status, sealed


async def dispatch(app: ASGIApp, call: FrontCall, carrier: str) -> tuple[int, bytes]:
    """Status and body of a port's answer, without the port."""
    reply = _Reply(call.body)
    await app(_scope(call, carrier), reply.receive, reply.send)
    return reply.status, bytes(reply.body)


class _Reply:
    """An ASGI request with its body in one piece, and the response as it comes."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self.status = 500
        self.body = bytearray()

    async def receive(self) -> dict[str, Any]:
        body, self._body = self._body, b""
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.body += message.get("body", b"")


def _scope(call: FrontCall, carrier: str) -> dict[str, Any]:
    """As a server would make it. The caller has no address: rates count by who carried the call."""
    path, _, query = call.path.partition("?")
    headers = [(b"host", b"front"), (b"content-length", str(len(call.body)).encode())]
    if call.authorization:
        headers.append((b"authorization", call.authorization.encode()))
    if call.body:
        headers.append((b"content-type", b"application/json"))
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "https",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": headers,
        "client": (carrier, 0),
        "server": ("front", 443),
    }
