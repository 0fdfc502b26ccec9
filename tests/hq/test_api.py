"""Who may call what: the whole table, strict bodies, bounded strangers, and slots for anybody."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import (
    DOMAIN,
    ENTROPY,
    NETWORK,
    Node,
    Operator,
    make_home,
    make_root,
    run,
    serving,
)

from holdfast.crypto.certificates import (
    Authority,
    TlsKey,
    cert_info,
    create_root,
    issue_intermediate,
    issue_leaf,
)
from holdfast.crypto.certinfo import NodeName
from holdfast.crypto.keys import SigningKey
from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.api import RULES, Caller, caller_of
from holdfast.hq.main import Headquarters
from holdfast.logic.fleet.model import Role, SlotRecord
from holdfast.logic.fleet.rows import NodeRow, NodeState, node_key
from holdfast.logic.trust.revocation import Revocations, Revoked
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.store import Put
from holdfast.rim.https import JsonClient
from holdfast.rim.https_client import _Request
from holdfast.rim.tls import Credentials
from holdfast.wire.codec import pack
from holdfast.wire.hq import Application, RootReply, SlotReply, SlotRequest, StapleReply
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple


class Raw:
    """Requests as bytes, on one verified connection each: what a hostile client can send."""

    def __init__(self, hq: Headquarters, own: Credentials | None = None) -> None:
        roots = hq.parts.authority.roots
        self._client = JsonClient(hq.parts.api_addresses, roots, own, SystemClock())

    async def status(self, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
        """(HTTP status, word of the Problem; empty for success)."""
        request = _Request(method, path, body)
        status, data = await self._client._anywhere(request, 10.0, False)
        word = "" if status < 300 else json.loads(data)["error"]
        return status, word

    async def close(self) -> None:
        await self._client.close()


async def members(hq: Headquarters, operator: Operator) -> dict[Caller, Credentials | None]:
    """Credentials of every kind of caller that TLS lets in."""
    found: dict[Caller, Credentials | None] = {Caller.NOBODY: None}
    for caller, role in (
        (Caller.RELAY, Role.RELAY),
        (Caller.REPLICA, Role.REPLICA),
        (Caller.RETIRED, Role.RELAY),
    ):
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        reply = await node.join(await operator.token(role=role))
        found[caller] = Credentials(reply.chain, node.key)
        if caller is Caller.RETIRED:
            kv = await hq.parts.store.get(node_key(reply.node))
            assert kv is not None
            row = msgspec.msgpack.decode(kv.value, type=NodeRow)
            retired = msgspec.structs.replace(row, state=NodeState.RETIRED)
            await hq.parts.store.txn([], [Put(kv.key, pack(retired))])
            async with asyncio.timeout(10):
                while hq.parts.desired.node(reply.node) != retired:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    found[Caller.STRANGER] = hq.parts.authority.own_credentials()
    return found


def test_every_caller_against_every_route(tmp_path: Path) -> None:
    """The table is the truth, in both directions (CVE-2026-30836)."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        seen = 0
        for caller, own in (await members(hq, operator)).items():
            client = Raw(hq, own)
            for rule in RULES:
                path = rule.path.replace("{slot}", "00" * 16).replace("{id}", "x")
                body = b"{}" if rule.body is not None else b""
                status, word = await client.status(rule.method, path, body)
                allowed = caller in rule.callers
                assert (status, word) != (403, "forbidden") if allowed else status == 403, (
                    caller,
                    rule.path,
                    status,
                    word,
                )
                assert status < 500 or word == "unavailable", (caller, rule.path, status)
                seen += 1
            await client.close()
        assert seen == 5 * len(RULES)

    run(scenario, tmp_path)


def test_the_table_itself() -> None:
    """Nobody revoked anywhere; nobody without a certificate where a node is meant."""
    assert len({(rule.method, rule.path) for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert Caller.REVOKED not in rule.callers
    public = {rule.path for rule in RULES if Caller.NOBODY in rule.callers}
    assert public == {
        "/v1/root",
        "/v1/about",
        "/v1/join",
        "/v1/join-requests",
        "/v1/standby",
        "/v1/join-requests/{id}",
        "/v1/slots",
        "/v1/slots/{slot}",
        "/v1/revocations",
        "/v1/witnesses",
        "/v1/ticket-keys",
        "/v1/tickets",
        "/checkpoint",
        "/tile/{path:path}",
        "/v1/access/subscriptions/{token}",
        "/v1/evidence",
        "/sub/{token}",
        "/sub/{token}/{format}",
    }


def test_the_table_refuses_a_revoked_certificate_on_an_open_connection(tmp_path: Path) -> None:
    """D6: the node's row stays ACTIVE when one serial or one key is revoked."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        for by_key in (False, True):
            node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
            reply = await node.join(await operator.token())
            client = Raw(hq, Credentials(reply.chain, node.key))
            assert (await client.status("GET", "/v1/root"))[0] == 200
            info = cert_info(reply.chain[0])
            entry = Revoked(
                node=b"",
                serial="" if by_key else info.serial,
                key_hash=info.key_hash if by_key else b"",
                reason="lost",
                at=int(hq.clock.wall()),
            )
            known = hq.parts.revocations.entries
            known.fold(known.issue([entry], epoch=known.version.epoch, now=hq.clock.wall()))
            assert await client.status("GET", "/v1/root") == (403, "forbidden")
            await client.close()

    run(scenario, tmp_path)


@pytest.mark.parametrize("state", NodeState)
@pytest.mark.parametrize("role", Role)
def test_callers(state: NodeState, role: Role) -> None:
    node = b"n" * 32
    row = NodeRow(node, b"", "x", role, "eu", "p", "o", (), "1", 0, 0.0, state=state)
    caller = caller_of(NodeName(NETWORK, role.value, node), row)
    expected = {
        NodeState.REVOKED: Caller.REVOKED,
        NodeState.RETIRED: Caller.RETIRED,
        NodeState.ACTIVE: {
            Role.RELAY: Caller.RELAY,
            Role.REPLICA: Caller.REPLICA,
            Role.HQ: Caller.STRANGER,
            Role.ENTRY: Caller.ENTRY,
            Role.CORE: Caller.CORE,
        }[role],
    }[state]
    assert caller is expected
    assert caller_of(NodeName(NETWORK, "other", node), row) is Caller.STRANGER
    assert caller_of(NodeName(NETWORK, role.value, b"m" * 32), row) is Caller.STRANGER
    assert caller_of(NodeName(NETWORK, role.value, node), None) is Caller.STRANGER
    assert caller_of(None, None) is Caller.NOBODY


def test_certificates_of_others_do_not_get_in(tmp_path: Path) -> None:
    """Another network's, and one of ours for a node that never joined here."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        foreign = issue_intermediate(
            make_root(), TlsKey.from_bytes(b"f" * 32), NETWORK, SigningKey(b"f" * 32).public,
            hq.clock.wall(),
        )  # fmt: skip
        evil_root = create_root(b"e" * 32, b"e" * 16, DOMAIN, hq.clock.wall())
        evil = issue_intermediate(
            evil_root, TlsKey.from_bytes(b"e" * 32), b"e" * 16, SigningKey(b"e" * 32).public,
            hq.clock.wall(),
        )  # fmt: skip
        key = TlsKey.from_bytes(b"k" * 32)

        def leaf(ca: Authority, network: bytes) -> Credentials:
            der = issue_leaf(
                ca,
                spki=key.spki(),
                network=network,
                role="relay",
                node=b"n" * 32,
                dns_name=f"relay-eu-001.{DOMAIN}",
                serial=7,
                now=hq.clock.wall(),
                days=1,
            )
            return Credentials((der, ca.certificate), key)

        status, word = await Raw(hq, leaf(foreign, NETWORK)).status("GET", "/v1/desired")
        assert (status, word) == (403, "forbidden"), "no row: a stranger"
        with pytest.raises((PeerFault, OperationFault)):
            await Raw(hq, leaf(evil, b"e" * 16)).status("GET", "/v1/root")

    run(scenario, tmp_path)


BAD_BODIES = [
    (b"", 400),
    (b"{", 400),
    (b"[]", 400),
    (b'{"region":1}', 400),
    (b'{"region":"eu","more":1}', 400),
    (b'{"region":"eu"}x', 400),
    (b"\xff\xfe", 400),
    (b"[" * 100_000, 400),
    (b'{"region":"' + b"a" * (1 << 20) + b'"}', 413),
]


def test_bodies_are_strict_and_bounded(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        for body, expected in BAD_BODIES:
            client = Raw(hq)
            status, word = await client.status("POST", "/v1/slots", body)
            assert status == expected, body[:40]
            assert word in ("malformed", "too-large")
            await client.close()
        client = Raw(hq)
        for method, path, expected in [
            ("GET", "/v1/nothing", (404, "not-found")),
            ("GET", "/", (404, "not-found")),
            ("GET", "/admin/v1/status", (404, "not-found")),
            ("DELETE", "/v1/root", (405, "method")),
            ("GET", "/v1/slots/xyz", (400, "malformed")),
            ("GET", f"/v1/slots/{'00' * 16}", (404, "not-found")),
            ("GET", "/v1/join-requests/%00%ff", (404, "not-found")),
            ("GET", "/v1/join-requests/..%2f..%2fx", (404, "not-found")),
        ]:
            assert await client.status(method, path) == expected, path
        assert await client.status("GET", "/v1/root", b"{}") == (400, "malformed")
        await client.close()

    run(scenario, tmp_path)


def test_strangers_are_bounded(tmp_path: Path) -> None:
    """The limit is met through the public door, and what is public stays public."""

    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root(), slots_per_s=0.001, slots_burst=5.0)
        async with asyncio.timeout(60), serving(home) as hq:
            await hq.leading()
            client = Raw(hq)
            answers = [
                await client.status("POST", "/v1/slots", b'{"region":"eu"}') for _ in range(8)
            ]
            assert answers == [(503, "unavailable")] * 5 + [(429, "too-many")] * 3
            assert await client.status("GET", "/v1/root") == (200, "")
            await client.close()

    asyncio.run(main())


def test_guessing_tokens_is_bounded(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        token = await operator.token()
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        client = Raw(hq)
        guess = msgspec.json.encode(node.request(token, secret=b"g" * 32))
        codes = [(await client.status("POST", "/v1/join", guess))[1] for _ in range(220)]
        assert set(codes[:200]) == {"token"}
        assert "too-many" in codes[200:]
        await client.close()
        rows = await hq.parts.store.range("/audit/")
        assert not any(b"join.refused" in kv.value for kv in rows.items), "noise is not history"

    run(scenario, tmp_path)


async def volunteers(hq: Headquarters, operator: Operator) -> list[Node]:
    """Three relays and three replicas of six owners: enough for a slot."""
    nodes = []
    for role in (Role.RELAY, Role.REPLICA):
        for index in range(3):
            node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
            token = await operator.token(role=role, owner=f"owner-{role.value}-{index}")
            host = f"127.66.{index}.{1 if role is Role.RELAY else 2}"
            await node.join(token, addresses=(f"{host}:7443",), provider=f"provider-{index}")
            nodes.append(node)
    return nodes


def test_slots_for_anybody(tmp_path: Path) -> None:
    """Anonymous, signed, logged before it is told, and every server of it is told of it."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        nodes = await volunteers(hq, operator)
        roots = hq.parts.authority.roots
        client = JsonClient(hq.parts.api_addresses, roots, None, SystemClock())

        async def ask() -> SlotReply:
            request = SlotRequest("eu")
            async with asyncio.timeout(20):
                while True:
                    try:
                        return await client.call("POST", "/v1/slots", request, SlotReply)
                    except OperationFault:
                        await asyncio.sleep(0.1)

        reply = await ask()
        now = hq.clock.wall()
        record = verify_staple(roots, reply.record, Type.SLOT_RECORD, SlotRecord, now)
        assert {seat.node for seat in record.seats()} == {n.identity.node for n in nodes}
        leaves = (await hq.parts.store.range("/log/")).items
        assert any(reply.record.signed.body in kv.value for kv in leaves)
        path = f"/v1/slots/{record.slot.hex()}"
        again = await client.call("GET", path, None, SlotReply)
        assert again.record == reply.record
        for node in nodes:
            own = node.client()
            desired = await node.desired(own)
            bodies = [staple.signed.body for staple in desired.slots]
            assert reply.record.signed.body in bodies
            await own.close()
        listed = await client.call("GET", "/v1/revocations", None, StapleReply)
        revoked = verify_staple(roots, listed.staple, Type.REVOCATIONS, Revocations, now)
        assert revoked.entries == ()
        root = await client.call("GET", "/v1/root", None, RootReply)
        assert (root.network, root.domain, root.roots) == (NETWORK, DOMAIN, roots)
        await client.close()

    run(scenario, tmp_path)


def test_hq_keeps_nothing_of_its_clients(tmp_path: Path) -> None:
    """Seed 004 §5.2: a canary in everything a client can send is in no file of HQ's."""
    canary = "canary7q3x9"

    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        async with asyncio.timeout(60), serving(home) as hq:
            operator = Operator(home)
            await hq.leading()
            await volunteers(hq, operator)
            client = Raw(hq)
            for body in (
                {"region": canary},
                {"region": "eu", "user": canary},
                {"region": "eu"},
            ):
                await client.status("POST", "/v1/slots", json.dumps(body).encode())
            await client.status("GET", f"/v1/slots/{canary}")
            await client.status("GET", f"/v1/root?user={canary}")
            application = Application(Role.RELAY, "owner", canary)
            await client.status("POST", "/v1/join-requests", msgspec.json.encode(application))
            await client.close()
        for path in (tmp_path / "hq").rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                assert canary.encode() not in data, path
                assert b"127.0.0.1:" not in data or path.name in ("hq.json", "control.db"), path
        store = (tmp_path / "hq" / "control.db").read_bytes()
        assert b"owner-relay-0" in store, "the control: what nodes say of themselves is there"

    asyncio.run(main())


def test_entropy_is_used_for_serials(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        key = TlsKey.from_bytes(ENTROPY.bytes(32)).spki()
        authority = hq.parts.authority
        chains = [authority.issue(key, Role.RELAY, b"n" * 32, "relay-eu-001") for _ in range(20)]
        serials = {int(cert_info(chain[0]).serial) for chain in chains}
        assert len(serials) == 20
        assert max(serials) > 2**100

    run(scenario, tmp_path)
