"""The daemon of a process provider: `wire.cloud` over plain HTTP on loopback (D31).

One daemon is one hosting provider. It leads its own process group, in which all its servers stay:
SIGKILL to the group is the loss of the provider, a new daemon on the same directory is the power
coming back. The API is only for this machine, and even there wants a key (`rim.cloud.keys`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import HoldfastError, PeerFault, UsageError
from holdfast.limits import KIB
from holdfast.rim.cloud.keys import Keys
from holdfast.rim.cloud.keys import provider_key as provider_key
from holdfast.rim.cloud.machines import Machines
from holdfast.rim.entropy import Entropy, SystemEntropy
from holdfast.rim.files import remove_file, write_file
from holdfast.rim.loopback_server import LoopbackServer, Receive, Scope, Send
from holdfast.wire.cloud import (
    KEYS,
    LOG,
    SERVERS,
    CloudLog,
    CreateServer,
    KeyInfo,
    KeyList,
    KeyOrder,
    ServerList,
)
from holdfast.wire.codec import pack_json, unpack_json
from holdfast.wire.hq import Problem

REQUEST_BYTES_MAX: Final = 64 * KIB
Answer = tuple[int, object]


class DaemonFile(msgspec.Struct, frozen=True):
    """`daemon.json`, there while the daemon serves: where, and which processes it is."""

    name: str
    listen: str
    pid: int
    group: int


class Daemon:
    """The API in front of `Machines`."""

    def __init__(
        self,
        directory: Path,
        name: str,
        key: str,
        machines: Machines,
        entropy: Entropy | None = None,
    ) -> None:
        """`key` is the account's own."""
        self._directory = directory
        self._name = name
        self._keys = Keys(directory, key)
        self._entropy = entropy or SystemEntropy()
        self.machines = machines
        self._server = LoopbackServer(self._application)

    @property
    def listen(self) -> str:
        """`host:port` of the API, once it is served."""
        return self._server.address

    async def start(self, host: str, port: int) -> None:
        """Power the servers on and serve. Raises OperationFault when the port is taken."""
        await self._server.start(host, port)
        self.machines.note("start", self._name)
        await self.machines.power_on()
        about = DaemonFile(self._name, self.listen, os.getpid(), os.getpgrp())
        write_file(self._directory / "daemon.json", pack_json(about))

    async def stop(self) -> None:
        """Stop serving, then every server, cleanly."""
        await self._server.stop()
        await self.machines.power_off()
        self.machines.note("stop", self._name)
        remove_file(self._directory / "daemon.json")

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            return
        try:
            status, reply = await self._answer(scope, receive)
        except HoldfastError as error:
            status, reply = _problem(error)
        body = pack_json(reply)
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer:
        caller = self._keys.find(dict(scope["headers"]).get(b"authorization", b""))
        if caller is None:
            return 401, Problem("unauthorized", "wrong or missing bearer key")
        method, path = scope["method"], scope["path"]
        if (method, path) == ("GET", "/v1/key"):
            return 200, caller
        needed = _scope_of(path)
        if needed is not None and needed not in caller.scopes:
            return 403, Problem("forbidden", f"this key is not for {needed}")
        if needed == KEYS:
            return await self._answer_keys(method, path, receive)
        head, _, name = path.rpartition("/")
        if (method, path) == ("POST", "/v1/servers"):
            body = await _body(receive)
            request = unpack_json(CreateServer, body, bytes_max=REQUEST_BYTES_MAX)
            server, new = await self.machines.create(request)
            return (201 if new else 409), server
        if (method, path) == ("GET", "/v1/servers"):
            return 200, ServerList(self.machines.list())
        if (method, path) == ("GET", "/v1/log"):
            return 200, CloudLog(self.machines.events())
        if (method, head) == ("DELETE", "/v1/servers"):
            return 200, await self.machines.delete(name)
        return _nothing(method, path)

    async def _answer_keys(self, method: str, path: str, receive: Receive) -> Answer:
        """Keys for less than everything: made, listed, taken back."""
        head, _, id = path.rpartition("/")
        if (method, path) == ("POST", "/v1/keys"):
            order = unpack_json(KeyOrder, await _body(receive), bytes_max=REQUEST_BYTES_MAX)
            now = self.machines.now()
            made = self._keys.make(order.scopes, order.note, now, self._entropy)
            self.machines.note("key", made.id)
            return 201, made
        if (method, path) == ("GET", "/v1/keys"):
            return 200, KeyList(self._keys.list())
        if (method, head) == ("DELETE", "/v1/keys"):
            gone: KeyInfo = self._keys.revoke(id)
            self.machines.note("key-back", gone.id)
            return 200, gone
        return _nothing(method, path)


def _scope_of(path: str) -> str | None:
    """What a key must be for to be let in there."""
    first = path.removeprefix("/v1/").partition("/")[0]
    return {"servers": SERVERS, "log": LOG, "keys": KEYS}.get(first)


def _nothing(method: str, path: str) -> Answer:
    return 404, Problem("not-found", f"{method} {path} is nothing of ours")


async def _body(receive: Receive) -> bytes:
    """The request's body. Raises PeerFault past the limit."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise PeerFault("the caller went away")
        parts.append(message.get("body", b""))
        if sum(map(len, parts)) > REQUEST_BYTES_MAX:
            raise PeerFault("request too large", code="too-large")
        if not message.get("more_body", False):
            return b"".join(parts)


def _problem(error: HoldfastError) -> Answer:
    if isinstance(error, PeerFault):
        return (404 if error.code == "not-found" else 400), Problem(error.code, str(error))
    if isinstance(error, UsageError):
        return 422, Problem("refused", str(error))
    return 503, Problem("unavailable", str(error))
