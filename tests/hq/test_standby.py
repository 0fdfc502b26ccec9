"""Headquarters' desk for machines that stand by (ADR 0045), through its API."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import Node, Operator, run

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.main import Headquarters
from holdfast.hq.standby import StandbyDesk
from holdfast.logic.fleet.model import Role
from holdfast.logic.fleet.rows import IntentRow, IntentState
from holdfast.node.membership import stand_by
from holdfast.rim.clock import SystemClock
from holdfast.wire.token import parse_token

STANDBY = IntentRow(
    "standby-eu-1", 1, "standby", "", Role.RELAY, "alder", "eu", "standby", IntentState.ORDERED, 0.0
)
CALLED = msgspec.structs.replace(
    STANDBY, action="spawn", name="replica-eu-007", role=Role.REPLICA, reason="heal", warm=True
)
UNCALLED_S = 0.5


def test_a_machine_waits_is_called_and_joins_with_the_token_it_has(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        desk = hq.parts.standby_desk()
        token = parse_token(await desk.issue(STANDBY))
        assert token.stands_by
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        with pytest.raises(PeerFault) as caught:
            await node.join(token, role=None)
        assert caught.value.code == "standby"
        waiting = asyncio.create_task(stand_by(token, SystemClock()))
        await asyncio.sleep(UNCALLED_S)
        assert not waiting.done(), "nobody called it"
        assert await desk.issue(CALLED) == ""
        await desk.issue(CALLED)  # again, as after a crash
        async with asyncio.timeout(5):
            await waiting
        reply = await node.join(token, role=None)
        assert (reply.name, reply.role) == ("replica-eu-007", Role.REPLICA)
        thief = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        with pytest.raises(PeerFault) as caught:
            await thief.join(token, role=None)
        assert caught.value.code == "token-used"
        await desk.issue(CALLED)  # its certificate is out; calling once more changes nothing

    run(scenario, tmp_path)


def test_who_was_called_before_a_crash_is_told_after_it(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = parse_token(await hq.parts.standby_desk().issue(STANDBY))
        await hq.parts.standby_desk().issue(CALLED)
        heard: list[str] = []

        async def seen(intent: str) -> None:
            heard.append(intent)

        later = StandbyDesk(hq.parts.store, SystemClock(), hq.parts.tokens.for_intent)
        reply = await later.ask(token.secret, seen)
        assert (reply.name, heard) == ("replica-eu-007", [])

    run(scenario, tmp_path)


def test_a_token_nobody_made_is_worthless_and_counted(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = parse_token(await hq.parts.standby_desk().issue(STANDBY))
        with pytest.raises(PeerFault) as caught:
            await stand_by(msgspec.structs.replace(token, secret=b"?" * 32), SystemClock())
        assert caught.value.code == "token"
        with pytest.raises(OperationFault):
            await hq.parts.standby_desk().issue(msgspec.structs.replace(CALLED, id="standby-eu-2"))

    run(scenario, tmp_path)
