"""Who may do what, through the socket: every verb with every role, and two persons where it matters
(DESIGN §4, seed 004 §5.3)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import Node, Operator, run

from holdfast.crypto.pure import base32
from holdfast.errors import PeerFault, UsageError
from holdfast.hq.admin import Admin
from holdfast.hq.audit import audit_rows
from holdfast.hq.gate import Gate
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import (
    OPERATORS,
    OperatorMade,
    OperatorOrder,
    Operators,
    PendingItems,
    Waiting,
)
from holdfast.hq.verbs import OperatorRole
from holdfast.logic.audit import ExportLine, export_line
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.loopback import LoopbackClient
from holdfast.rim.process import holdfast_command

OWNER, RUNS, LOOKS, SHARES = "owner", "operator", "auditor", "participant"
TABLE = {
    "GET /status": (OWNER, RUNS, LOOKS, SHARES),
    "GET /fleet": (OWNER, RUNS, LOOKS, SHARES),
    "POST /launch": (OWNER, RUNS),
    "POST /confirm-unfreeze": (OWNER, RUNS),
    "GET /tokens": (OWNER, RUNS, LOOKS),
    "POST /tokens": (OWNER, RUNS),
    "POST /grants": (OWNER, RUNS),
    "DELETE /tokens/{hash}": (OWNER, RUNS),
    "POST /revoke": (OWNER, RUNS),
    "GET /certificates": (OWNER, RUNS, LOOKS),
    "GET /applications": (OWNER, RUNS, LOOKS),
    "POST /applications/{id}/approve": (OWNER, RUNS),
    "POST /applications/{id}/decline": (OWNER, RUNS),
    "GET /audit": (OWNER, RUNS, LOOKS),
    "GET /audit/verify": (OWNER, RUNS, LOOKS),
    "GET /snapshots": (OWNER, RUNS, LOOKS),
    "GET /alerts": (OWNER, RUNS, LOOKS),
    "POST /alerts/acknowledge": (OWNER, RUNS),
    "GET /metrics": (OWNER, RUNS, LOOKS, SHARES),
    "POST /login-link": (OWNER, RUNS, LOOKS),
    "POST /servers/{name}/drain": (OWNER, RUNS),
    "POST /drain": (OWNER, RUNS),
    "GET /standby": (OWNER, RUNS, LOOKS),
    "POST /standby": (OWNER, RUNS),
    "GET /rebalance": (OWNER, RUNS, LOOKS),
    "POST /rebalance": (OWNER, RUNS),
    "DELETE /rebalance": (OWNER, RUNS),
    "GET /rotation": (OWNER, RUNS, LOOKS),
    "PUT /rotation": (OWNER, RUNS),
    "DELETE /rotation": (OWNER, RUNS),
    "POST /servers/{name}/rotate": (OWNER, RUNS),
    "POST /rotate": (OWNER, RUNS),
    "GET /credentials": (OWNER, RUNS, LOOKS),
    "POST /credentials/{name}/stage": (OWNER, RUNS),
    "POST /credentials/{name}/take": (OWNER, RUNS),
    "PUT /credentials/{name}/schedule": (OWNER, RUNS),
    "GET /releases": (OWNER, RUNS, LOOKS),
    "POST /releases": (OWNER, RUNS),
    "GET /upgrade": (OWNER, RUNS, LOOKS, SHARES),
    "POST /upgrade": (OWNER, RUNS),
    "POST /upgrade/halt": (OWNER, RUNS),
    "POST /upgrade/resume": (OWNER, RUNS),
    "POST /upgrade/back": (OWNER, RUNS),
    "POST /servers/{name}/defer": (OWNER, RUNS),
    "GET /access": (OWNER, RUNS, LOOKS),
    "POST /access/cells": (OWNER, RUNS),
    "POST /access/cells/{cell}/turn": (OWNER, RUNS),
    "POST /access/cells/{cell}/isolate": (OWNER, RUNS),
    "POST /access/cells/{cell}/retire": (OWNER, RUNS),
    "POST /access/cells/{cell}/move": (OWNER, RUNS),
    "POST /access/cells/{cell}/regenerate": (OWNER, RUNS),
    "POST /access/members": (OWNER, RUNS),
    "POST /access/members/{id}/standing": (OWNER, RUNS),
    "POST /access/devices": (OWNER, RUNS),
    "POST /access/devices/{id}/revoke": (OWNER, RUNS),
    "POST /access/devices/{id}/move": (OWNER, RUNS),
    "POST /access/devices/{id}/token": (OWNER, RUNS),
    "POST /access/nodes/{name}/drain": (OWNER, RUNS),
    "PUT /access/policies/{core}": (OWNER, RUNS),
    "GET /front": (OWNER, RUNS, LOOKS),
    "GET /openapi.json": (OWNER, RUNS, LOOKS, SHARES),
    "GET /operators": (OWNER, RUNS, LOOKS),
    "POST /operators": (OWNER,),
    "DELETE /operators/{name}": (OWNER,),
    "GET /pending": (OWNER, RUNS, LOOKS),
    "POST /pending/{id}/agree": (OWNER, RUNS),
    "POST /pending/{id}/drop": (OWNER, RUNS),
}
"""Written down by hand: what the code says of itself proves nothing."""


class People:
    """Persons and their keys, at one headquarters."""

    def __init__(self, hq: Headquarters, local: Operator) -> None:
        self.hq = hq
        self.local = local
        self.keys: dict[str, str] = {}

    async def add(self, name: str, role: str, by: str | None = None) -> Any:
        """A new operator, made by the local owner or by somebody named."""
        body = {"name": name, "role": role}
        status, reply = await self.call("POST", "/operators", body, by=by)
        if status == 200:
            self.keys[name] = msgspec.convert(reply, OperatorMade).key
        return reply

    async def call(
        self, method: str, path: str, body: object = None, *, by: str | None = None
    ) -> tuple[int, Any]:
        client = self.local.client
        if by is not None:
            clock: Clock = SystemClock()
            client = LoopbackClient(self.hq.admin_address, self.keys.get(by, by), clock)
        status, data = await client.exchange(method, "/admin/v1" + path, body)
        return status, msgspec.json.decode(data) if data.startswith(b"{") else data

    async def lines(self, verb: str) -> list[ExportLine]:
        rows = [export_line(data) async for data in audit_rows(self.hq.parts.store)]
        return [line for line in rows if line.verb == verb]


def test_every_verb_with_every_role(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        people = People(hq, operator)
        for role in (SHARES, LOOKS, RUNS, OWNER):
            await people.add(f"a-{role}", role)
        gate = Gate(Operators(hq.parts.store, hq.clock, hq._entropy), hq.parts.audit, "x")
        gate.routes(Admin(hq.parts, gate, hq.view).verbs())
        assert set(gate.verbs) == set(TABLE), "a verb without a row in this test"
        for name, allowed in TABLE.items():
            method, _, path = name.partition(" ")
            for part in ("hash", "id", "cell", "name", "core"):
                path = path.replace(f"{{{part}}}", "nothing")
            for role in (OWNER, RUNS, LOOKS, SHARES):
                status, reply = await people.call(method, path, {"no": "body"}, by=f"a-{role}")
                assert status != 401
                assert (status == 403) == (role not in allowed), (name, role, status, reply)
            status, _ = await people.call(method, path, {"no": "body"}, by="hfop1" + "0" * 64)
            assert status == 401, name
        refused = await people.lines("operator.refused")
        wanted = sum(4 - len(allowed) for allowed in TABLE.values())
        assert len(refused) == wanted, "a refusal is told, under its author"

    run(scenario, tmp_path)


def test_what_needs_two_waits_for_the_second(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        people = People(hq, operator)
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        reply = await node.join(await operator.token())
        order = {"reason": "stolen", "node": base32(reply.node)}
        await people.add("ann", RUNS)
        await people.add("ben", LOOKS)
        await people.add("cleo", OWNER)
        status, said = await people.call("POST", "/revoke", order, by="ann")
        waiting = msgspec.convert(said, Waiting)
        assert status == 202
        assert "cleo" in waiting.needs
        assert "ben" not in waiting.needs
        _, listed = await people.call("GET", "/pending", by="ben")
        (item,) = msgspec.convert(listed, PendingItems).items
        assert (item.id, item.author, item.verb) == (waiting.pending, "ann", "POST /revoke")
        agree = f"/pending/{waiting.pending}/agree"
        assert (await people.call("POST", agree, by="ann"))[0] == 403, "not the first again"
        assert (await people.call("POST", agree, by="ben"))[0] == 403, "an auditor looks"
        status, _ = await people.call("POST", agree, by="cleo")
        assert status == 200
        assert (await people.call("POST", agree, by="cleo"))[0] == 404, "done once"
        (line,) = await people.lines("operator.agreed")
        assert (line.subject, line.detail["asked_by"]) == ("cleo", "ann")

    run(scenario, tmp_path)


def test_a_stolen_key_outranks_nobody(tmp_path: Path) -> None:
    """The owner of the disk removes it alone; what it asked for dies with it; nobody saves
    themselves by dropping the order against them."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        people = People(hq, operator)
        await people.add("ann", OWNER)
        await people.add("ben", OWNER)
        await people.add("cleo", RUNS)
        said = await people.add("dan", OWNER, by="ann")
        assert "ben" in said["needs"], "a new key needs another"
        _, against = await people.call("DELETE", "/operators/cleo", by="ben")
        drop = f"/pending/{against['pending']}/drop"
        assert (await people.call("POST", drop, by="cleo"))[0] == 403
        assert (await people.call("POST", drop, by="ben"))[0] == 200, "ben thinks better of it"
        assert (await people.call("DELETE", "/operators/ann"))[0] == 200, "alone"
        assert (await people.call("GET", "/status", by="ann"))[0] == 401
        agree = f"/pending/{said['pending']}/agree"
        assert (await people.call("POST", agree, by="ben"))[0] == 403, "ann may not any more"
        (line,) = await people.lines("operator.removed")
        assert (line.subject, line.detail["author"]) == ("ann", "operator")
        operators = Operators(hq.parts.store, hq.clock, hq._entropy)
        with pytest.raises(UsageError, match="--replace"):
            await operators.add(OperatorOrder("ben", OperatorRole.AUDITOR), "operator")
        assert (await people.call("GET", "/status", by="ben"))[0] == 200
        for name in ("operator", "X", "a" * 40, "../x"):
            with pytest.raises((UsageError, PeerFault)):
                await operators.remove(name)
        kept = b"".join(kv.value for kv in (await hq.parts.store.range(OPERATORS)).items)
        assert people.keys["ben"].encode() not in kept

    run(scenario, tmp_path)


def test_the_commands(tmp_path: Path) -> None:
    """As two persons type them."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        home = f"--dir={tmp_path / 'hq'}"

        async def typed(*words: str, key: str = "", status: int = 0) -> dict[str, Any]:
            command = holdfast_command("hq", *words, home, "--json")
            env = {**os.environ, "HOLDFAST_OPERATOR_KEY": key}
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, text=True, env=env, check=False
            )
            assert done.returncode == status, done.stdout + done.stderr
            assert "Traceback" not in done.stderr
            return dict(json.loads(done.stdout.splitlines()[-1]))

        ann = (await typed("operator", "add", "ann", "--role=owner"))["key"]
        said = await typed("operator", "add", "ben", "--role=auditor", key=ann, status=2)
        assert "holdfast hq agree" in said["message"]
        (waiting,) = (await typed("pending", key=ann))["items"]
        assert "ben" in waiting["body"], "who agrees sees to what"
        made = await typed("agree", waiting["id"])
        assert made["name"] == "ben"
        listed = await typed("operator", "list", key=made["key"])
        assert [row["name"] for row in listed["items"]] == ["ann", "ben"]
        said = await typed("operator", "remove", "ann", key=made["key"], status=2)
        assert "auditor" in said["message"]

    run(scenario, tmp_path)
