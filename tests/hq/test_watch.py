"""Alerts, metrics and the bill of a headquarters on real ports."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.hq.headquarters import Node, Operator, make_home, make_root, run, serving

from holdfast.cli.main import run as cli
from holdfast.crypto.pure import base32
from holdfast.hq.alerts import ALERTS
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OperatorMade
from holdfast.hq.watch_admin import Acknowledgement, AlertItems
from holdfast.limits.operating import METRIC_SERVERS_MAX
from holdfast.logic.fleet.alerts import Kind
from holdfast.logic.fleet.model import Load, Role, Version
from holdfast.rim.clock import SystemClock
from holdfast.rim.loopback import LoopbackClient
from holdfast.wire.hq import Heartbeat, HeartbeatReply, LogFault
from holdfast.wire.pool import Empty

pytestmark = pytest.mark.system
FULL = Load(free_bytes=4, stored_bytes=96, sessions=7, commit_p99_ms=12.0, requests_per_s=3.5)


async def joined(hq: Headquarters, operator: Operator, load: Load = FULL) -> Node:
    """A relay of ann's that has sent one heartbeat."""
    node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
    reply = await node.join(await operator.token(owner="ann", provider="alder"))
    beat = Heartbeat(
        term=0,
        desired=0,
        revocations=Version(0, 0),
        load=load,
        addresses=("127.77.0.1:7443",),
        cert_serial="1",
        cert_expires_at=0,
        filled=True,
        version="0",
    )
    client = node.client()
    try:
        await client.call("POST", "/v1/heartbeat", beat, HeartbeatReply)
    finally:
        await client.close()
    assert reply.name
    return node


async def kinds(operator: Operator) -> dict[str, Kind]:
    found = await operator.call("GET", "/alerts", None, AlertItems)
    return {item.id: item.kind for item in found.items}


async def until(operator: Operator, kind: Kind, there: bool = True) -> str:
    """The id of an alert once there is one; or once there is none any more."""
    async with asyncio.timeout(30.0):
        while True:
            found = [id for id, known in (await kinds(operator)).items() if known is kind]
            if bool(found) == there:
                return found[0] if found else ""
            await asyncio.sleep(0.1)


def test_a_disk_fills_and_is_emptied(tmp_path: Path) -> None:
    """From a heartbeat to the words an operator reads, acknowledged, and over by itself."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = await joined(hq, operator)
        id = await until(operator, Kind.DISK_FULL)
        assert id == "disk-nearly-full:relay-eu-001"
        items = (await operator.call("GET", "/alerts", None, AlertItems)).items
        (item,) = [item for item in items if item.id == id]
        assert (item.owner, item.concerns.value) == ("ann", "owner of the node")
        assert "4 % of its room" in item.what
        await operator.call("POST", "/alerts/acknowledge", Acknowledgement(id), msgspec.Raw)
        items = (await operator.call("GET", "/alerts", None, AlertItems)).items
        assert [i.acknowledged_by for i in items if i.id == id] == ["operator"]
        beat = msgspec.structs.replace(FULL, free_bytes=80, stored_bytes=20)
        brain = hq.parts.acting()
        assert node.reply is not None
        await brain.heartbeat(node.reply.node, _beat(beat))
        await until(operator, Kind.DISK_FULL, there=False)
        reply = await hq.parts.store.range(ALERTS)
        assert not [kv for kv in reply.items if b"disk-nearly-full" in kv.value]

    run(scenario, tmp_path, time_scale=60.0)


def _beat(load: Load) -> Heartbeat:
    return Heartbeat(0, 0, Version(0, 0), load, ("127.77.0.1:7443",), "1", 0, True, "0")


def test_a_forked_log_is_told_once_and_survives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root(), time_scale=10.0)
        async with asyncio.timeout(60.0):
            async with serving(home, SystemClock(10.0)) as hq:
                await hq.leading()
                operator = Operator(home)
                node = await joined(hq, operator)
                client = node.client()
                fault = LogFault("the log forked", b"one", b"other")
                await client.call("POST", "/v1/log-faults", fault, Empty)
                await client.call("POST", "/v1/log-faults", fault, Empty)
                await client.close()
                id = await until(operator, Kind.LOG_DISPUTED)
            async with serving(home, SystemClock(10.0)) as hq:
                await hq.leading()
                operator = Operator(home)
                assert id in await kinds(operator), "it is durable"
                await operator.call("POST", "/alerts/acknowledge", Acknowledgement(id), Any)
                await until(operator, Kind.LOG_DISPUTED, there=False)
            async with serving(home, SystemClock(10.0)) as hq:
                await hq.leading()
                await asyncio.sleep(2.0)
                assert id not in await kinds(Operator(home)), "what was read is not read again"

    asyncio.run(main())


def test_what_waits_for_a_second_person(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        order = {"name": "bob", "role": "operator"}
        made = await operator.call("POST", "/operators", order, OperatorMade)
        client = LoopbackClient(hq.admin_address, made.key, SystemClock())
        body = {"reason": "stolen", "node": base32(bytes(32))}
        status, _ = await client.exchange("POST", "/admin/v1/revoke", body)
        assert status == 202
        id = await until(operator, Kind.SECOND_AWAITED)
        items = (await operator.call("GET", "/alerts", None, AlertItems)).items
        (item,) = [item for item in items if item.id == id]
        assert item.step == f"holdfast hq agree {item.subject}"
        assert "bob asked for POST /revoke" in item.what
        status, reply = await client.exchange(
            "POST", "/admin/v1/alerts/acknowledge", {"id": "hq-frozen:fleet"}
        )
        assert status == 404, reply

    run(scenario, tmp_path, time_scale=10.0)


def test_prometheus_reads_the_metrics(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = await joined(hq, operator)
        await until(operator, Kind.DISK_FULL)
        status, data = await operator.client.exchange("GET", "/metrics", None)
        assert status == 200
        text = data.decode()
        values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        relay = (("role", "relay"), ("server", "relay-eu-001"))
        assert values["holdfast_servers", (("role", "relay"), ("tier", "green"))] == 1
        assert values["holdfast_servers", (("role", "replica"), ("tier", "red"))] == 0
        assert values["holdfast_server_sessions", relay] == 7
        assert values["holdfast_server_commit_p99_seconds", relay] == 0.012
        assert values["holdfast_hq_leading", ()] == 1
        assert values["holdfast_alerts", (("alert", "disk-nearly-full"),)] == 1
        assert values["holdfast_audit_lines_total", ()] > 0
        names = {name for name, _ in values}
        assert all(name.startswith("holdfast_") for name in names)
        labels = {key for _, pairs in values for key, _ in pairs}
        assert labels <= {"role", "tier", "state", "server", "alert", "severity", "version",
                          "copies", "action", "shelf"}  # fmt: skip
        assert node.reply is not None
        assert base32(node.reply.node)[:12] not in text
        stranger = LoopbackClient(hq.admin_address, "x", SystemClock())
        assert (await stranger.exchange("GET", "/metrics", None))[0] == 401

    run(scenario, tmp_path, time_scale=60.0)


def test_a_fleet_too_large_for_series_is_told_by_role(tmp_path: Path) -> None:
    from holdfast.hq.metrics import Figures, exposition

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await joined(hq, operator)
        while not (view := hq.view()).servers:  # noqa: ASYNC110 - it shows a turn later
            await asyncio.sleep(0.01)
        (server,) = view.servers
        for count, there in ((METRIC_SERVERS_MAX, True), (METRIC_SERVERS_MAX + 1, False)):
            fleet = tuple(msgspec.structs.replace(server, name=f"relay-{n}") for n in range(count))
            page = exposition(Figures(True, 1, msgspec.structs.replace(view, servers=fleet)))
            assert (b'server="relay-7"' in page) is there
            assert f'holdfast_servers{{role="relay",tier="green"}} {count}.0'.encode() in page

    run(scenario, tmp_path)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await joined(hq, operator)
        id = await until(operator, Kind.DISK_FULL)
        words = ["--dir", str(hq.home.directory)]

        async def say(*verb: str) -> tuple[int, str]:
            status = await asyncio.to_thread(cli, ["hq", *verb, *words])
            return status, capsys.readouterr().out

        status, out = await say("alerts")
        assert status == 1
        assert "warning   disk-nearly-full:relay-eu-001" in out
        assert "for the owner of the node (ann)" in out
        assert "holdfast hq drain relay-eu-001" in out
        assert (await say("acknowledge", id))[0] == 0
        status, out = await say("alerts", "--json")
        assert msgspec.json.decode(out.splitlines()[-1])["items"]
        status, out = await say("metrics")
        assert status == 0
        assert 'holdfast_servers{role="relay",tier="green"} 1.0' in out
        status, out = await say("cost", "--price", "alder=9.5", "--json")
        bill = msgspec.json.decode(out.splitlines()[-1])
        assert (bill["machines"], bill["theirs"], bill["monthly_eur"]) == (0, 1, 0.0)

    run(scenario, tmp_path, time_scale=60.0)


def test_roles(tmp_path: Path) -> None:
    """Of the pool and of the access layer: all four are counted, the access ones by heartbeat."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        assert (await operator.token(role=Role.REPLICA)).role is Role.REPLICA
        text = (await operator.client.exchange("GET", "/metrics", None))[1].decode()
        for role in ("relay", "replica", "entry", "core"):
            assert f'holdfast_servers{{role="{role}",tier="green"}} 0.0' in text

    run(scenario, tmp_path)
