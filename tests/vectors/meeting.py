"""Vectors of port windows and of what devices say of each other."""

from __future__ import annotations

from typing import Any

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.logic.peers.book import Presence, Sighting
from holdfast.logic.peers.windows import Terms, first_secret, knock, mark, window
from holdfast.wire.codec import pack
from holdfast.wire.peers import BEAT, Beat, BeatReply, Call, Return, sign_presence, sign_sighting


def seed(label: str) -> bytes:
    """A fixed 32-byte secret for `label`."""
    return hash_bytes(b"holdfast vector " + label.encode())


def windows() -> list[dict[str, Any]]:
    """windows.json."""
    device, seer, secret = SigningKey(seed("device")), SigningKey(seed("seer")), seed("windows")
    presence = sign_presence(device, 7, ("192.0.2.7", "2001:db8::7"))
    sighting = sign_sighting(seer, Sighting(device.public, 7, "198.51.100.7"))
    beat = Beat(secret, "198.51.100.7", (mark(secret),), (presence,), (sighting,))
    call = Call(5, seer.public, (device.public,), BEAT, pack(beat))
    reply = Return(5, "", pack(BeatReply(1_795_000_000.25, 1_795_000_000.5, beat)))
    cases = []
    for period in (0, 1, 2_991_666):
        found = window(secret, period, Terms())
        cases.append({"period": period, "port": found.port, "opens_at": found.opens_at})
    return [
        {
            "secret": secret.hex(),
            "windows": cases,
            "pairing": seed("pairing").hex(),
            "listener": device.public.hex(),
            "first_secret": first_secret(seed("pairing"), device.public).hex(),
            "knock": knock(secret, 2_991_666, bytes(range(16))).hex(),
            "mark": mark(secret).hex(),
            "presence": pack(presence).hex(),
            "sighting": pack(sighting).hex(),
            "hosts": list(Presence(device.public, 7, ("192.0.2.7", "2001:db8::7")).hosts),
            "call": pack(call).hex(),
            "return": pack(reply).hex(),
        }
    ]


FILES = {"windows": windows}
