"""The operator's verbs about load and age, through the socket (seed 004 §6.2, §6.3)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import Node, Operator, run

from holdfast.errors import UsageError
from holdfast.hq.audit import audit_rows
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OperatorMade, PendingItems
from holdfast.hq.rebalance_admin import RebalanceOrder, Rebalancing
from holdfast.hq.rotation_admin import MassRotate, RotationView, Schedule
from holdfast.hq.verbs import Done
from holdfast.logic.audit import export_line
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.loopback import LoopbackClient
from holdfast.wire.token import JoinToken


async def six(hq: Headquarters, operator: Operator) -> None:
    """Six machines of ours, which make slots."""
    for number in range(6):
        role = Role.RELAY if number % 2 else Role.REPLICA
        token: JoinToken = await operator.token(role=role, provider=f"p{number // 2}")
        await Node(hq.parts.api_addresses, hq.parts.authority.roots).join(token)
    while len(hq.parts.acting().view().slots) != 16:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def verbs(hq: Headquarters) -> list[str]:
    return [export_line(row).verb async for row in audit_rows(hq.parts.store)]


def test_rebalance_says_how_it_stands_begins_and_stops(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await six(hq, operator)
        found: Rebalancing = await operator.call("GET", "/rebalance", None, Rebalancing)
        assert (found.on, found.imbalance, found.planned) == (False, 1.0, ())
        with pytest.raises(UsageError, match="nothing is being"):
            await operator.call("DELETE", "/rebalance", None, Done)
        with pytest.raises(UsageError, match="moves_per_min"):
            await operator.call("POST", "/rebalance", RebalanceOrder(0), Done)
        token = await operator.token(role=Role.RELAY, provider="p9")
        await Node(hq.parts.api_addresses, hq.parts.authority.roots).join(token)
        found = await operator.call("GET", "/rebalance", None, Rebalancing)
        assert len(found.planned) == 12, "of 48 seats a fourth relay gets its quarter"
        assert {move.role for move in found.planned} == {Role.RELAY}
        assert found.imbalance > 1.3
        assert found.imbalance_planned == 1.0
        await operator.call("POST", "/rebalance", RebalanceOrder(3), Done)
        found = await operator.call("GET", "/rebalance", None, Rebalancing)
        assert (found.on, found.author, found.moves_per_min) == (True, "operator", 3)
        await operator.call("DELETE", "/rebalance", None, Done)
        assert [verb for verb in await verbs(hq) if verb.startswith("rebalance")] == [
            "rebalance.began",
            "rebalance.ended",
        ]

    run(scenario, tmp_path)


def test_nothing_moves_during_an_upgrade(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await six(hq, operator)
        await hq.parts.rolling().start(
            b"n" * 32, "eu", "ann", at_once=1, soak_s=None, halting=True, required_at=0.0
        )
        with pytest.raises(UsageError, match="upgrade is under way"):
            await operator.call("POST", "/rebalance", RebalanceOrder(3), Done)
        with pytest.raises(UsageError, match="upgrade is under way"):
            await operator.call("POST", "/servers/relay-eu-001/rotate", None, Done)
        with pytest.raises(UsageError, match="upgrade is under way"):
            await operator.call("POST", "/rotate", MassRotate(("relay-eu-001",)), Done)

    run(scenario, tmp_path)


def test_rotation_of_several_and_a_standing_order_are_for_two(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await six(hq, operator)
        made = await operator.call(
            "POST", "/operators", {"name": "ann", "role": "operator"}, OperatorMade
        )
        ann = LoopbackClient(hq.admin_address, made.key, SystemClock())

        async def ask(method: str, path: str, body: object) -> tuple[int, Any]:
            status, data = await ann.exchange(method, "/admin/v1" + path, body)
            return status, msgspec.json.decode(data)

        both = MassRotate(("relay-eu-001", "relay-eu-002"))
        assert (await ask("POST", "/rotate", both))[0] == 202
        assert (await ask("PUT", "/rotation", Schedule(30.0)))[0] == 202
        assert (await ask("POST", "/servers/relay-eu-003/rotate", None))[0] == 200
        view: RotationView = await operator.call("GET", "/rotation", None, RotationView)
        assert [turn.name for turn in view.turns] == ["relay-eu-003"]
        assert view.every_days == 0
        waiting: PendingItems = await operator.call("GET", "/pending", None, PendingItems)
        for item in waiting.items:
            await operator.call("POST", f"/pending/{item.id}/agree", None, msgspec.Raw)
        view = await operator.call("GET", "/rotation", None, RotationView)
        assert {turn.name for turn in view.turns} == {f"relay-eu-00{n}" for n in (1, 2, 3)}
        assert (view.every_days, view.at_once, view.author) == (30.0, 1, "ann")
        status, _ = await ask("POST", "/servers/replica-eu-001/rotate", None)
        assert status == 422, "a fourth by itself is a mass rotation"
        assert (await ask("DELETE", "/rotation", None))[0] == 200
        view = await operator.call("GET", "/rotation", None, RotationView)
        assert (view.every_days, view.turns) == (0.0, ())

    run(scenario, tmp_path)


def test_what_cannot_be_rotated_is_said_before_anything_is(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await six(hq, operator)
        token = await operator.token(role=Role.RELAY, owner="ben", provider="p9")
        await Node(hq.parts.api_addresses, hq.parts.authority.roots).join(token)
        for order, says in (
            (MassRotate(("relay-eu-001", "relay-eu-009")), "no relay or replica relay-eu-009"),
            (MassRotate(("relay-eu-001", token.name)), "ben's machine"),
            (MassRotate(), "one of the two"),
            (MassRotate(older_than_days=9.0), "no machine of ours is older"),
            (MassRotate(("relay-eu-001",), at_once=99), "at_once"),
        ):
            with pytest.raises(UsageError, match=says):
                await operator.call("POST", "/rotate", order, Done)
        with pytest.raises(UsageError, match="every_days"):
            await operator.call("PUT", "/rotation", Schedule(0.01), Done)
        view: RotationView = await operator.call("GET", "/rotation", None, RotationView)
        assert view.turns == ()

    run(scenario, tmp_path)
