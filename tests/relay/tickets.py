"""A ticket office in a test's hand: keys of given terms, tickets as a member draws them."""

from __future__ import annotations

import os
import time
from functools import cache

from holdfast.crypto.blindrsa import PREFIX_BYTES, BlindSigningKey
from holdfast.logic.fleet.model import Version
from holdfast.wire.tickets import Ticket, TicketClass, TicketKeys, ticket_message


@cache
def signing_key(name: str) -> BlindSigningKey:
    return BlindSigningKey.generate()


class Office:
    """Classes by name, and what they grant."""

    def __init__(self, network: bytes) -> None:
        self.network = network
        self.classes: dict[str, TicketClass] = {}
        self._version = 0

    def offer(
        self,
        name: str,
        *,
        bytes_max: int = 1 << 20,
        per_s: float = 100.0,
        burst: float = 1_000.0,
        life_s: float = 3_600.0,
    ) -> TicketClass:
        spki = signing_key(name).public.spki
        until = int(time.time() + life_s)
        item = self.classes[name] = TicketClass(name, spki, bytes_max, per_s, burst, until)
        return item

    def keys(self) -> TicketKeys:
        """The statement that HQ signs, of a higher version each time."""
        self._version += 1
        classes = tuple(sorted(self.classes.values(), key=lambda item: (item.name, item.spki)))
        return TicketKeys(self.network, Version(0, self._version), int(time.time()), classes)

    def draw(self, name: str, network: bytes | None = None) -> bytes:
        """A ticket: blinded, signed, unblinded."""
        key = signing_key(name)
        prefix = os.urandom(PREFIX_BYTES)
        message = ticket_message(prefix, network or self.network)
        blinded, inverse = key.public.blind(message, os.urandom(48), os.urandom(272))
        signature = key.public.finalize(
            message, key.sign_blinded(blinded, os.urandom(272)), inverse
        )
        return bytes(Ticket(key.public.id, prefix, signature))
