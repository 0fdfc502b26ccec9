"""Sending a letter to a device and answering those that come (`wire.letter`).

A `Courier` is the port: it takes a sealed letter to a device and brings the answer back. `Direct`
does so over a socket to a known address; other paths (a friend's node in between, a mailbox) are
couriers too and change nothing above.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, TypeVar

import msgspec

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.wrap import WrapKey, wrap
from holdfast.errors import HoldfastError, OperationFault, PeerFault, UsageError
from holdfast.limits.people import (
    LETTER_BYTES_MAX,
    LETTER_S_MAX,
    LETTERS_AT_ONCE_MAX,
)
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.rim.stream import Listener, Stream, connect
from holdfast.wire.address import split_address
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign, verify
from holdfast.wire.letter import (
    Answer,
    Letter,
    LetterBody,
    Request,
    answer_info,
    check_time,
    letter_info,
    prove_access,
    proven_tags,
)
from holdfast.wire.person import DeviceStatement, verify_statement
from holdfast.wire.signed import Signed, Type

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Peer(msgspec.Struct, frozen=True):
    """A device that can be written to."""

    key: bytes
    wrap: bytes
    addresses: tuple[str, ...]
    name: str = ""
    person: bytes = b""


class Courier(Protocol):
    """Takes a letter to a device. Raises OperationFault when it cannot be reached."""

    async def carry(self, peer: Peer, letter: bytes) -> bytes:
        """The sealed answer."""
        ...


class Direct:
    """Over a socket, to the first address that answers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def carry(self, peer: Peer, letter: bytes) -> bytes:
        fault = OperationFault(f"no address known for {peer.name or peer.key.hex()[:8]}")
        for address in peer.addresses:
            try:
                stream = await connect(
                    split_address(address),
                    self._clock,
                    frame_bytes_max=LETTER_BYTES_MAX,
                    frame_s=LETTER_S_MAX,
                )
                try:
                    await stream.send(letter)
                    return await stream.receive()
                finally:
                    stream.close()
            except (OperationFault, PeerFault) as error:
                fault = OperationFault(f"{peer.name or address}: {error}")
        raise fault


class Sender(msgspec.Struct, frozen=True):
    """Who writes: a device's key, its wrap key, and its person's word."""

    key: SigningKey
    wrap: WrapKey
    statement: Signed


class Writer:
    """Asks other devices."""

    def __init__(self, me: Sender, courier: Courier, clock: Clock, entropy: Entropy) -> None:
        self._me = me
        self._courier = courier
        self._clock = clock
        self._entropy = entropy

    async def ask(
        self,
        peer: Peer,
        verb: str,
        body: object,
        shape: type[T],
        access: Iterable[SigningKey] = (),
    ) -> T:
        """One question and its answer. Raises OperationFault, PeerFault, and UsageError when the
        other says no."""
        fresh = WrapKey(self._entropy.bytes(32))
        request = Request(
            verb,
            pack(body),
            self._me.statement,
            fresh.public,
            int(self._clock.wall()),
            tuple(prove_access(key, fresh.public, peer.key) for key in access),
        )
        sealed = wrap(peer.wrap, pack(request), letter_info(peer.key))
        signed = sign(self._me.key, Type.LETTER, LetterBody(peer.key, hash_bytes(sealed)))
        reply = await self._courier.carry(peer, pack(Letter(signed, sealed)))
        plain = fresh.unwrap(reply, answer_info(signed.body))
        answer = unpack(Answer, plain, bytes_max=LETTER_BYTES_MAX)
        if answer.code == "unavailable":
            raise OperationFault(f"{peer.name or 'a device'}: {answer.why}")
        if answer.code:
            raise UsageError(f"{peer.name or 'a device'} says no: {answer.why}")
        return unpack(shape, answer.body, bytes_max=LETTER_BYTES_MAX)


class Caller(msgspec.Struct, frozen=True):
    """Who asks, verified: the device, whose it is, and which tags it may open."""

    statement: DeviceStatement
    tags: frozenset[bytes]
    reply_key: bytes


Handler = Callable[[Caller, bytes], Awaitable[object]]


class Desk:
    """Answers letters to this device. Verbs are registered by those who answer them."""

    def __init__(self, me: Sender, clock: Clock) -> None:
        self._me = me
        self._clock = clock
        self._verbs: dict[str, Handler] = {}
        self._listener = Listener(
            self._serve,
            clock,
            frame_bytes_max=LETTER_BYTES_MAX,
            frame_s=LETTER_S_MAX,
            connections_max=LETTERS_AT_ONCE_MAX,
        )

    def register(self, verbs: dict[str, Handler]) -> None:
        """Answer these verbs too."""
        assert not verbs.keys() & self._verbs.keys()
        self._verbs |= verbs

    async def start(self, host: str, port: int) -> str:
        """Listen; the address."""
        await self._listener.start(host, port)
        return self._listener.address

    async def stop(self) -> None:
        """Close."""
        await self._listener.stop()

    async def _serve(self, stream: Stream) -> None:
        await stream.send(await self.answer(await stream.receive()))

    async def answer(self, letter: bytes) -> bytes:
        """The sealed answer to a letter. Raises PeerFault for one that is none, or not for us."""
        found = unpack(Letter, letter, bytes_max=LETTER_BYTES_MAX)
        signed = found.signed
        body = verify(Type.LETTER, LetterBody, signed)
        own = self._me.key.public
        if body.to != own:
            raise PeerFault("letter for another device", code="forbidden")
        if hash_bytes(found.sealed) != body.digest:
            raise PeerFault("letter whose content is another's", code="signature")
        plain = self._me.wrap.unwrap(found.sealed, letter_info(own))
        request = unpack(Request, plain, bytes_max=LETTER_BYTES_MAX)
        answer = await self._decide(signed, request, own)
        return wrap(request.reply_key, pack(answer), answer_info(signed.body))

    async def _decide(self, signed: Signed, request: Request, own: bytes) -> Answer:
        try:
            check_time(request.at, self._clock.wall())
            statement = verify_statement(request.statement)
            if statement.device != signed.signer:
                raise PeerFault("letter by a device that nobody vouches for", code="signature")
            handler = self._verbs.get(request.verb)
            if handler is None:
                raise PeerFault(f"no verb called {request.verb[:40]!r}", code="verb")
            caller = Caller(statement, proven_tags(request, own), request.reply_key)
            return Answer("", "", pack(await handler(caller, request.body)))
        except OperationFault as fault:
            return Answer("unavailable", str(fault), b"")
        except HoldfastError as fault:
            _log.info("a letter is refused: %s", fault)
            return Answer(getattr(fault, "code", "refused") or "refused", str(fault), b"")


def body_of(shape: type[T], body: bytes) -> T:
    """Decode a request's body. Raises PeerFault."""
    return unpack(shape, body, bytes_max=LETTER_BYTES_MAX)
