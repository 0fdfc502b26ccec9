"""The vectors of port windows and standing connections (section 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from . import wire

if TYPE_CHECKING:
    from .check_vectors import Checks

PRESENCE, SIGHTING = 22, 23


def windows(checks: Checks, vector: dict[str, Any]) -> None:
    """windows.json: ports and times from the secret, signed words, and one heartbeat."""
    get = {k: bytes.fromhex(v) for k, v in vector.items() if isinstance(v, str)}
    secret = get["secret"]
    for case in vector["windows"]:
        period = case["period"]
        drawn = wire.keyed(secret, b"window" + period.to_bytes(8, "big"))
        checks.same(20_000 + int.from_bytes(drawn[:4], "big") % 12_000, case["port"], "port")
        offset = int.from_bytes(drawn[4:8], "big") / 2**32 * 590.0
        checks.same(period * 600.0 + offset, case["opens_at"], "opening")
        nonce = bytes(range(16))
        said = nonce + wire.keyed(secret, b"knock" + period.to_bytes(8, "big") + nonce)
        checks.same(said == get["knock"], period == vector["windows"][-1]["period"], "knock")
    first = wire.derive("holdfast v1 first window", get["pairing"] + get["listener"])
    checks.same(first, get["first_secret"], "secret of the first windows")
    checks.same(wire.keyed(secret, b"mark"), get["mark"], "mark")
    presence, sighting = (wire.unpack(wire.SIGNED, get[k]) for k in ("presence", "sighting"))
    said = wire.verify(PRESENCE, presence)
    checks.same((said["device"], said["hosts"]), (presence[1], vector["hosts"]), "presence")
    seen = wire.verify(SIGHTING, sighting)
    checks.same((seen["device"], seen["n"]), (said["device"], said["n"]), "sighting")
    checks.refuses("presence as sighting", lambda: wire.verify(SIGHTING, presence))
    tag, number, to, path, verb, body = msgpack.unpackb(get["call"])
    checks.same((tag, number, to, path, verb), (1, 5, sighting[1], [presence[1]], "beat"), "call")
    beat = msgpack.unpackb(body)
    expected = {"secret": secret, "you": seen["host"], "marks": [get["mark"]]}
    expected |= {"presences": [presence], "sightings": [sighting]}
    checks.same(beat, expected, "heartbeat")
    tag, number, code, body = msgpack.unpackb(get["return"])
    reply = {"received_at": 1_795_000_000.25, "replied_at": 1_795_000_000.5, "beat": beat}
    checks.same((tag, number, code, msgpack.unpackb(body)), (2, 5, "", reply), "return")
