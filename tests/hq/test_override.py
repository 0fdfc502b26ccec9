"""`holdfast node override`: two owners' word makes clients follow what they would not (D4)."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import ENTROPY, NETWORK, Operator, run
from tests.relay.harness import until

from holdfast.errors import PeerFault
from holdfast.hq.main import Headquarters
from holdfast.logic.fleet.model import Seat, SlotRecord, Version
from holdfast.logic.fleet.rows import SLOTS, SlotRow
from holdfast.logic.trust.witnesses import WitnessKey, WitnessSet
from holdfast.node import membership
from holdfast.node.home import Home, Member
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.store import Put
from holdfast.rim.https import JsonClient
from holdfast.wire.codec import pack
from holdfast.wire.hq import SlotReply
from holdfast.wire.logged import approvers
from holdfast.wire.signed import Type

SLOT = bytes(range(16))
CLOCK = SystemClock()


async def member_of(path: Path, operator: Operator, owner: str) -> tuple[Home, Member]:
    home = Home(path)
    address = "127.77.0.1:7443"
    token = await operator.token(owner=owner)
    member = await membership.join(
        home,
        token,
        listen=address,
        addresses=(address,),
        provider="",
        clock=CLOCK,
        entropy=ENTROPY,
    )
    return home, member


async def write_slot(hq: Headquarters) -> SlotRecord:
    """A slot whose six servers nobody knows."""
    seats = tuple(
        Seat(f"{role}-eu-00{n}", bytes([n]) * 32, ("127.0.0.1:1",), f"p{n}", "o", "eu")
        for n, role in enumerate(("relay",) * 3 + ("replica",) * 3, 1)
    )
    record = SlotRecord(NETWORK, SLOT, Version(0, 9), 1, seats[:3], seats[3:])
    staple = hq.parts.authority.sign(Type.SLOT_RECORD, record)
    names = tuple(seat.name for seat in seats)
    row = SlotRow(
        SLOT, "eu", record.version, names[:3], names[3:], 0.0, staple=pack(staple), seats=seats
    )
    await hq.parts.store.txn([], [Put(SLOTS + SLOT.hex(), msgspec.msgpack.encode(row))])
    await until(lambda: hq.parts.desired.slot(SLOT) is not None)
    return record


def test_two_owners_sign_and_whoever_asks_for_the_record_gets_their_word(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        record = await write_slot(hq)
        keys = []
        for owner in ("ada", "bo"):
            home, member = await member_of(tmp_path / owner, operator, owner)
            client = membership.connect(home, member, CLOCK)
            with pytest.raises(PeerFault, match="no such slot"):
                await membership.override(
                    home, member, client, "00" * 16, signing=True, clock=CLOCK
                )
            for signing in (False, True):
                shown = await membership.override(
                    home, member, client, SLOT.hex(), signing=signing, clock=CLOCK
                )
                assert shown == record
            keys.append(WitnessKey(home.own_identity().public, owner))
            await client.close()
        known = WitnessSet(NETWORK, Version(0, 1), 1, tuple(keys))
        public = JsonClient(hq.parts.api_addresses, hq.parts.authority.roots, None, CLOCK)
        reply = await public.call("GET", f"/v1/slots/{SLOT.hex()}", None, SlotReply)
        assert len(reply.record.overrides) == 2
        assert approvers(reply.record, record, known) == {"ada", "bo"}
        other = msgspec.structs.replace(record, version=Version(0, 10))
        assert approvers(reply.record, other, known) == frozenset()
        await public.close()

    run(scenario, tmp_path)
