"""A hostile operator's door: the real relay behind it, and a liar in front for chosen tags.

A `Liar` sees each request of the tag it lies to and may change the reply. It sits inside the
server, behind its real socket and TLS, holds the server's identity key and signs with it: all that
an operator could do. Its lies are in `sim.drills.lies`. The door also listens: whatever a client
sends here is searched for what must never leave a device in the clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.relay.desk import Desk
from holdfast.relay.door import VERBS, Door
from holdfast.rim.entropy import Dice
from holdfast.wire.codec import Message
from holdfast.wire.envelope import sign
from holdfast.wire.faults import Refusal, to_reply
from holdfast.wire.frame import cut, join, split
from holdfast.wire.pool import (
    Attestation,
    AttestReply,
    GetReply,
    HaveReply,
    HelloReply,
    Item,
    ListReply,
    OpenReply,
    OpenRequest,
    PullReply,
    PushReply,
)
from holdfast.wire.signed import Signed, Type, decode_body

REPLIES: Final[dict[str, type[Message]]] = {
    "hello": HelloReply,
    "open": OpenReply,
    "push": PushReply,
    "pull": PullReply,
    "get": GetReply,
    "have": HaveReply,
    "list": ListReply,
    "attest": AttestReply,
}
"""Verbs that can be lied about; the others pass."""
Shown = list[tuple[Item, bytes | None]]
"""Items of a pull with their inline bodies."""


class Ears:
    """What every door of a world hears. `secrets` must not be in it."""

    def __init__(self) -> None:
        self.secrets: set[bytes] = set()
        self.leaks = 0
        self.heard_bytes = 0

    def hear(self, body: bytes) -> None:
        """A request came in."""
        self.heard_bytes += len(body)
        self.leaks += sum(secret in body for secret in self.secrets)


class Liar:
    """Lies to one tag. Subclasses change replies in `on_<verb>(request, reply, bodies)`, requests
    in `ask_<verb>(request)`; `told` counts the lies that left."""

    def __init__(self, desk: Desk, slot: bytes, tag: bytes, dice: Dice) -> None:
        self.desk = desk
        self.slot = slot
        self.tag = tag
        self.dice = dice
        self.told = 0
        self.second: set[bytes] = set()
        """Tokens of sessions that were opened after `turn`."""
        self.turned = False
        self.base = desk.store.head(slot, tag)
        """The tag's head when the lying began."""

    def turn(self) -> None:
        """From now on it is another device that comes."""
        self.turned = True

    async def answer(self, inner: Door, verb: str, body: bytes) -> tuple[int, bytes]:
        """One request of the tag."""
        request, rest = split(VERBS[verb].request, body)
        asks = getattr(self, f"ask_{verb}", None)
        if asks is not None:
            changed = asks(request)
            if isinstance(changed, tuple):
                return changed
            body = join(changed, (rest,)) if changed is not request else body
        status, frame = await inner.answer(verb, body)
        if status != 200 or verb not in REPLIES:
            return status, frame
        reply, data = split(REPLIES[verb], frame, header_bytes_max=1 << 24)
        if isinstance(reply, OpenReply) and self.turned:
            self.second.add(reply.session)
        says = getattr(self, f"on_{verb}", None)
        if says is None:
            return status, frame
        reply, bodies = says(request, reply, [bytes(b) for b in _bodies(reply, data)])
        return 200, join(reply, bodies)

    # --- Tools of the trade ----------------------------------------------------------------------
    def refuse(self, error: PeerFault | Refusal) -> tuple[int, bytes]:
        """An error as the wire has it."""
        self.told += 1
        status, reply = to_reply(error)
        return status, join(reply)

    def resigned(self, reply: AttestReply, **fields: Any) -> AttestReply:
        """The attestation with other contents under the same key."""
        said = decode_body(Type.ATTESTATION, Attestation, reply.attestation)
        values = {name: getattr(said, name) for name in Attestation.__struct_fields__}
        return AttestReply(self.sign(Type.ATTESTATION, Attestation(**(values | fields))))

    def sign(self, kind: Type, message: object) -> Signed:
        """Sign as this server."""
        return sign(self.desk.identity, kind, message)


def paired(reply: PullReply, bodies: Sequence[bytes]) -> Shown:
    """Items with their bodies."""
    rest = iter(bodies)
    return [(item, next(rest) if item.inline else None) for item in reply.items]


def unpaired(shown: Shown, head: int, *, more: bool) -> tuple[PullReply, list[bytes]]:
    """A pull's reply of those."""
    items = tuple(item for item, _ in shown)
    return PullReply(items, head, more), [body for _, body in shown if body is not None]


def _bodies(reply: Message, data: memoryview) -> list[memoryview]:
    if isinstance(reply, PullReply):
        return cut(data, [item.size for item in reply.items if item.inline])
    if isinstance(reply, GetReply):
        return cut(data, [size for size in reply.sizes if size >= 0])
    return []


class LyingDoor:
    """A `PoolHandler`: the real door, with liars for some tags."""

    def __init__(self, desk: Desk, ears: Ears) -> None:
        self.desk = desk
        self._inner = Door(desk)
        self._ears = ears
        self.liars: dict[bytes, Liar] = {}

    async def answer(self, verb: str, body: bytes) -> tuple[int, bytes]:
        """As `PoolHandler.answer`."""
        self._ears.hear(body)
        liar = self._liar(verb, body) if self.liars else None
        if liar is None:
            return await self._inner.answer(verb, body)
        return await liar.answer(self._inner, verb, body)

    def page(self, path: str) -> tuple[int, str, bytes]:
        """As `PoolHandler.page`; a liar's page says what the real one says: that all is well."""
        return self._inner.page(path)

    def _liar(self, verb: str, body: bytes) -> Liar | None:
        if verb not in VERBS or verb == "watch":
            return None
        try:
            request, _ = split(VERBS[verb].request, body)
            if isinstance(request, OpenRequest):
                return self.liars.get(hash_bytes(request.proof.signer))
            token = getattr(request, "session", None)
            return self.liars.get(self.desk.sessions.find(token).tag) if token else None
        except PeerFault:
            return None
