"""Proofs of misbehaviour reach HQ, are checked, kept once, shown, and can be carried on (D15)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.hq.headquarters import Node, Operator, run
from tests.vectors import proofs

from holdfast.errors import OperationFault, PeerFault
from holdfast.hq.audit import audit_rows
from holdfast.hq.evidence import evidence_rows
from holdfast.hq.main import Headquarters
from holdfast.limits.evidence import EVIDENCE_BURST, EVIDENCE_PER_NODE_MAX
from holdfast.logic.audit import export_line
from holdfast.logic.fleet.model import Role
from holdfast.rim.clock import SystemClock
from holdfast.rim.https import JsonClient
from holdfast.rim.process import holdfast_command
from holdfast.web.source import page_of
from holdfast.wire.evidence import Evidence, Kind, pack_evidence
from holdfast.wire.hq import Accusation, EvidenceReply, EvidenceReport
from holdfast.wire.pool import Empty

pytestmark = pytest.mark.system


async def accused(hq: Headquarters, operator: Operator) -> Node:
    """A relay of this network, with the key that signed the proofs of `tests.vectors`."""
    node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
    node.identity = proofs.NODE
    await node.join(await operator.token(role=Role.RELAY))
    return node


async def hand_in(hq: Headquarters, data: bytes) -> EvidenceReply:
    """As anybody can."""
    client = JsonClient(hq.parts.api_addresses, hq.parts.authority.roots, None, SystemClock())
    try:
        return await client.call("POST", "/v1/evidence", EvidenceReport(data), EvidenceReply)
    finally:
        await client.close()


def conflict(sequence: int = 5) -> bytes:
    pair = (proofs.receipt(proofs.A, sequence), proofs.receipt(proofs.B, sequence))
    return pack_evidence(Evidence(1, Kind.CONFLICT, pair, ()))


def test_a_proof_is_kept_once_and_told(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await accused(hq, operator)
        first = await hand_in(hq, conflict())
        assert first.kept
        again = await hand_in(hq, conflict())
        assert (again.id, again.kept) == (first.id, False)
        (row,) = await evidence_rows(hq.parts.store)
        assert (row.id, row.node, row.kind) == (first.id, proofs.NODE.node, "conflict")
        lines = [export_line(data) async for data in audit_rows(hq.parts.store)]
        (line,) = [line for line in lines if line.verb == "server.misbehaved"]
        assert line.subject == row.name
        assert line.detail["proof"] == first.id.hex()
        view = hq.view()
        (entry,) = [entry for entry in view.timeline if entry.verb == "server.misbehaved"]
        assert "lied" in entry.text
        tiles = {tile.name: tile.proofs for tile in page_of(view).servers}
        assert tiles[row.name] == 1
        assert sum(tiles.values()) == 1

    run(scenario, tmp_path)


def test_what_proves_nothing_about_a_node_of_ours_is_refused(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        with pytest.raises(PeerFault) as refused:
            await hand_in(hq, conflict())
        assert refused.value.code == "not-found"
        await accused(hq, operator)
        good = proofs.cases()["denial, of what is there"][0]
        for data in (b"", b"\xff" * 99, pack_evidence(good)):
            with pytest.raises(PeerFault):
                await hand_in(hq, data)
        assert await evidence_rows(hq.parts.store) == []

    run(scenario, tmp_path)


def test_a_flood_of_proofs_is_bounded_twice(tmp_path: Path) -> None:
    """By how many of one kind about one node are kept, and by how many one address may bring."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await accused(hq, operator)
        kept = refused = 0
        for number in range(int(EVIDENCE_BURST) + 5):
            try:
                kept += (await hand_in(hq, conflict(number + 1))).kept
            except OperationFault as fault:
                refused += "too many" in str(fault)
        assert refused >= 3
        assert kept == EVIDENCE_PER_NODE_MAX == len(await evidence_rows(hq.parts.store))

    run(scenario, tmp_path)


def test_a_servers_word_against_its_peer_is_logged_once_and_proves_nothing(tmp_path: Path) -> None:
    """D11: what nobody signed is told, under the name of who says it."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        liar = await accused(hq, operator)
        witness = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        await witness.join(await operator.token(role=Role.REPLICA))
        assert liar.reply is not None
        assert witness.reply is not None
        said = Accusation("any name", proofs.NODE.node, "false-sums")
        client = witness.client()
        try:
            for _ in range(3):
                await client.call("POST", "/v1/accusations", said, Empty)
            for wrong in (Accusation("x", b"x" * 32, "false-sums"), Accusation("x", said.node, "")):
                with pytest.raises(PeerFault):
                    await client.call("POST", "/v1/accusations", wrong, Empty)
        finally:
            await client.close()
        lines = [export_line(data) async for data in audit_rows(hq.parts.store)]
        (line,) = [line for line in lines if line.verb == "server.accused"]
        assert line.subject == liar.reply.name
        assert line.detail["by"] == witness.reply.name
        (entry,) = [e for e in hq.view().timeline if e.verb == "server.accused"]
        assert "shows" in entry.text
        assert {tile.proofs for tile in page_of(hq.view()).servers} == {0}

    run(scenario, tmp_path)


def test_an_operator_carries_a_proof_away_and_anybody_verifies_it(tmp_path: Path) -> None:
    """seed 004 §5.2: what a vote needs is a file that needs nobody's word."""
    out = tmp_path / "liar.proof"

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        await accused(hq, operator)
        await hand_in(hq, conflict())

    run(scenario, tmp_path)
    home = f"--dir={tmp_path / 'hq'}"
    listed = holdfast("hq", "evidence", "list", home)["proofs"]
    assert [proof["kind"] for proof in listed] == ["conflict"]
    holdfast("hq", "evidence", "show", listed[0]["id"][:16], home, f"--out={out}")
    found = holdfast("hq", "evidence", "verify", str(out))
    assert (found["ok"], found["kind"]) == (True, "conflict")
    out.write_bytes(msgspec.msgpack.encode(["no proof"]))
    assert holdfast("hq", "evidence", "verify", str(out), status=1)["ok"] is False


def holdfast(*words: str, status: int = 0) -> Any:
    command = [*holdfast_command(*words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
