"""Becoming friends: the conversation of `wire.pairing`, from either side, over any channel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pake import Pake
from holdfast.crypto.phrase import word_list
from holdfast.crypto.pure import hash_bytes
from holdfast.device.eras import device_wrap, person_wrap
from holdfast.device.peering.channel import Channel
from holdfast.device.runtime import DeviceRuntime
from holdfast.errors import PeerFault, UsageError
from holdfast.limits.people import PAIR_S_MAX
from holdfast.logic.group.friends import Friend, FriendDevice
from holdfast.logic.group.operation import VersionId
from holdfast.rim.clock import Clock
from holdfast.rim.entropy import Entropy
from holdfast.wire.codec import pack, unpack
from holdfast.wire.envelope import sign
from holdfast.wire.pairing import (
    FRAME_BYTES_MAX,
    GUEST,
    HOST,
    VERSION,
    Card,
    PairAnswer,
    PairCard,
    PairDone,
    PairOpen,
    card_key,
    card_nonce,
    fingerprint,
    pairing_secret,
    proof,
    transcript,
    verify_card,
)
from holdfast.wire.person import DeviceStatement
from holdfast.wire.signed import Signed, Type, unpack_signed

_SPOKEN: Final = 256
"""Words a spoken code is made of: every eighth of the list, so that no two begin alike."""
_EVERY: Final = 8


class WrongCode(PeerFault):
    """Somebody tried a code that is not this one. Make a new code, and look who is near."""


class Offer(msgspec.Struct, frozen=True):
    """What a device tells of itself when it pairs."""

    name: str
    addresses: tuple[str, ...] = ()


def draw_code(entropy: Entropy) -> str:
    """A code to say aloud: two words, 16 bits."""
    first, second = entropy.bytes(2)
    words = spoken_words()
    return f"{words[first]}-{words[second]}"


def spoken_words() -> tuple[str, ...]:
    """The 256 words of spoken codes."""
    return word_list()[::_EVERY]


def code_bytes(text: str) -> bytes:
    """A spoken code as typed, in the form that both sides use. Raises UsageError."""
    words = text.lower().replace("-", " ").split()
    known = spoken_words()
    if len(words) != 2 or not set(words) <= set(known):
        raise UsageError("a pairing code is two words, for example abandon-zone; ask again")
    return "-".join(words).encode()


def fingerprint_words(data: bytes) -> str:
    """Five words that both sides see."""
    bits = int.from_bytes(data, "big") >> 1
    words = word_list()
    return " ".join(words[bits >> shift & 2_047] for shift in (44, 33, 22, 11, 0))


class Who(msgspec.Struct, frozen=True):
    """What a pairing needs of a device; one that has no network yet can pair as well."""

    key: SigningKey
    person: bytes
    statement: Signed
    person_wrap: bytes
    locator: str
    replaces: Callable[[bytes], tuple[VersionId, ...]]
    clock: Clock
    entropy: Entropy


def who_is(runtime: DeviceRuntime) -> Who:
    """An open device."""
    return Who(
        key=runtime.state.key,
        person=runtime.state.person,
        statement=runtime.state.statement,
        person_wrap=person_wrap(runtime.keyring.era.secret).public,
        locator=str(runtime.keyring.slot.current_locator()),
        replaces=runtime.keyring_log.state.friends.replaces,
        clock=runtime.clock,
        entropy=runtime.entropy,
    )


class Pairing:
    """One conversation. `code` is what both know; the answer is a friend to keep."""

    def __init__(
        self, device: DeviceRuntime | Who, channel: Channel, code: bytes, offer: Offer
    ) -> None:
        self._who = device if isinstance(device, Who) else who_is(device)
        self._channel = channel
        self._code = code
        self._offer = offer
        self._share = self._who.entropy.bytes(32)

    async def host(self) -> Friend:
        """Wait for a guest, once. Raises WrongCode when somebody guesses, PeerFault,
        OperationFault."""
        pake = Pake(self._code, self._who.entropy.bytes, host=True)
        opening = pack(PairOpen(VERSION, pake.message))
        await self._channel.send(opening)
        answer = unpack(PairAnswer, await self._next(), bytes_max=FRAME_BYTES_MAX)
        key, t = pake.finish(answer.pake), transcript(opening, answer.pake)
        if answer.proof != proof(key, GUEST, t):
            raise WrongCode("somebody tried a wrong code; make a new one, and look who is near")
        mine = self._card(t)
        await self._channel.send(pack(PairCard(proof(key, HOST, t), _seal(key, HOST, mine, t))))
        reply = unpack(PairCard, await self._next(), bytes_max=FRAME_BYTES_MAX)
        theirs = _open(key, GUEST, reply.sealed, t)
        friend = self._friend(key, t, mine, theirs, theirs)
        await self._channel.send(pack(PairDone()))
        return friend

    async def guest(self) -> Friend:
        """Meet a host. Raises WrongCode, PeerFault, OperationFault."""
        first = await self._next()
        opening = unpack(PairOpen, first, bytes_max=FRAME_BYTES_MAX)
        if opening.version != VERSION:
            raise PeerFault("pairing of another version; update both programs", code="version")
        pake = Pake(self._code, self._who.entropy.bytes, host=False)
        key, t = pake.finish(opening.pake), transcript(first, pake.message)
        await self._channel.send(pack(PairAnswer(pake.message, proof(key, GUEST, t))))
        reply = unpack(PairCard, await self._next(), bytes_max=FRAME_BYTES_MAX)
        if reply.proof != proof(key, HOST, t):
            raise WrongCode("the other side has another code; ask again, and type it anew")
        theirs, mine = _open(key, HOST, reply.sealed, t), self._card(t)
        friend = self._friend(key, t, theirs, mine, theirs)
        await self._channel.send(pack(PairCard(b"", _seal(key, GUEST, mine, t))))
        unpack(PairDone, await self._next(), bytes_max=FRAME_BYTES_MAX)
        return friend

    async def _next(self) -> bytes:
        return await self._channel.receive(PAIR_S_MAX)

    def _card(self, t: bytes) -> bytes:
        who = self._who
        card = Card(
            statement=who.statement,
            name=self._offer.name,
            person_wrap=who.person_wrap,
            device_wrap=device_wrap(who.key.seed).public,
            addresses=self._offer.addresses,
            locator=who.locator,
            share=self._share,
            transcript=t,
        )
        return pack(sign(who.key, Type.PAIR_CARD, card))

    def _friend(self, key: bytes, t: bytes, host: bytes, guest: bytes, theirs: bytes) -> Friend:
        card, statement = verify_card(unpack_signed(theirs), t)
        if statement.person == self._who.person:
            raise UsageError("that is a device of your own; add it with holdfast device add")
        own = self._share
        shares = (own, card.share) if theirs is guest else (card.share, own)
        return Friend(
            person=statement.person,
            replaces=self._who.replaces(statement.person),
            name=card.name,
            secret=pairing_secret(*shares),
            wrap=card.person_wrap,
            devices=(_device(card, statement),),
            locator=card.locator,
            words=fingerprint_words(fingerprint(key, hash_bytes(host), hash_bytes(guest))),
            met_at=int(self._who.clock.wall()),
        )


def _device(card: Card, statement: DeviceStatement) -> FriendDevice:
    return FriendDevice(
        statement.device, statement.name, statement.roles, card.device_wrap, card.addresses
    )


def _seal(key: bytes, side: int, card: bytes, t: bytes) -> bytes:
    return ChaCha20Poly1305(card_key(key)).encrypt(card_nonce(side), card, t)


def _open(key: bytes, side: int, sealed: bytes, t: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(card_key(key)).decrypt(card_nonce(side), sealed, t)
    except InvalidTag as error:
        raise PeerFault("pairing card that does not open", code="unopenable") from error
