"""The log is served as C2SP has it, and every node witnesses it (issue 4 §6; D1, D4, D15)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.hq.headquarters import (
    DOMAIN,
    NETWORK,
    Node,
    Operator,
    make_home,
    make_root,
    run,
    serving,
)
from tests.relay.harness import until

from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import PeerFault
from holdfast.hq.main import Headquarters
from holdfast.hq.transparency import LOG_HEAD, LogHead, leaf_key
from holdfast.logic.fleet.model import SlotRecord, Version
from holdfast.logic.trust.checkpoint import log_origin, parse_checkpoint, witness_name
from holdfast.logic.trust.merkle import Tree, verify_consistency
from holdfast.logic.trust.note import (
    cosignature_input,
    cosignature_line,
    parse_note,
    signed_by,
)
from holdfast.logic.trust.tiles import TILE_WIDTH, Tile, hashes_of, parse_entries, tile_path
from holdfast.logic.trust.witness import Accuse, Cosign, Seen, Witness
from holdfast.logic.trust.witnesses import WitnessSet
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Delete, Put
from holdfast.rim.https import JsonClient
from holdfast.wire.envelope import sign
from holdfast.wire.hq import CheckpointReply, Cosignature, LogFault, OverrideRequest, StapleReply
from holdfast.wire.logged import cosigners, verify_checkpoint
from holdfast.wire.pool import Empty
from holdfast.wire.records import Override
from holdfast.wire.signed import Type
from holdfast.wire.staple import verify_staple

ORIGIN = log_origin(DOMAIN, NETWORK)


async def joined(hq: Headquarters, operator: Operator, owner: str) -> Node:
    node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
    await node.join(await operator.token(owner=owner))
    return node


async def newest(client: JsonClient, after: int = 0) -> CheckpointReply:
    return await client.call("GET", f"/v1/checkpoint?after={after}", None, CheckpointReply)


def line_of(key: SigningKey, text: str, at: int = 1_795_000_000) -> str:
    name = witness_name(DOMAIN, key.node)
    signature = key.sign(cosignature_input(text, at))
    return str(cosignature_line(name, key.public, at, signature))


async def cosign(node: Node, client: JsonClient) -> int:
    """What an agent does, without its memory."""
    reply = await newest(client)
    text = parse_note(reply.note).text
    size = parse_checkpoint(text).size
    body = Cosignature(size, line_of(node.identity, text))
    await client.call("POST", "/v1/cosignatures", body, Empty)
    return size


def owners_of(hq: Headquarters) -> tuple[str, ...]:
    cosigned = hq.parts.checkpoints.cosigned
    return () if cosigned is None else cosigned.owners


async def raw(hq: Headquarters, path: str) -> bytes:
    """A public page of HQ, as any tlog client fetches it."""
    client = JsonClient(hq.parts.api_addresses, hq.parts.authority.roots, None, SystemClock())
    try:
        return bytes(await client.fetch(path))
    finally:
        await client.close()


def test_anybody_can_rebuild_the_log_from_tiles(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        for owner in ("ada", "bo", "cy"):
            await joined(hq, operator, owner)
        note = parse_note(await raw(hq, "/checkpoint"))
        checkpoint = parse_checkpoint(note.text)
        assert checkpoint.origin == ORIGIN
        assert signed_by(note, ORIGIN, hq.parts.authority.identity_public)
        size = checkpoint.size
        assert 0 < size < TILE_WIDTH
        leaves = parse_entries(await raw(hq, f"/tile/entries/000.p/{size}"))
        tree = Tree(leaves)
        assert tree.root() == checkpoint.root
        tile = Tile(0, 0, size)
        assert await raw(hq, "/tile/" + tile_path(tile)) == hashes_of(tree, tile)
        for missing in ("/tile/0/001", "/tile/entries/000", "/tile/9/000", "/tile/0/000.p/250"):
            with pytest.raises(PeerFault) as caught:
                await raw(hq, missing)
            assert caught.value.code == "not-found"

    run(scenario, tmp_path)


def test_a_node_is_offered_checkpoints_that_extend_the_one_it_knows(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = await joined(hq, operator, "ada")
        client = node.client()
        reply = await newest(client)
        roots = hq.parts.authority.roots
        args = (roots, reply.note, reply.signer, reply.proof)
        now = SystemClock().wall()
        _, first = verify_checkpoint(*args, origin=ORIGIN, now=now)
        await joined(hq, operator, "bo")
        await until(lambda: hq.parts.checkpoints.published > first.size)
        reply = await newest(client, first.size)
        args = (roots, reply.note, reply.signer, reply.proof)
        _, second = verify_checkpoint(*args, origin=ORIGIN, now=now)
        assert second.size > first.size
        old = (first.size, first.root)
        assert verify_consistency(*old, second.size, second.root, reply.consistency)
        with pytest.raises(PeerFault):
            verify_checkpoint(*args, origin="other/log/00", now=now)
        await client.close()

    run(scenario, tmp_path)


def test_two_owners_make_the_watch_begin(tmp_path: Path) -> None:
    """D4: k = 2 as soon as there are two witnesses of distinct owners; what is in the log comes
    with its place, the checkpoint and the cosignatures."""

    async def scenario(hq: Headquarters, operator: Operator) -> None:
        book, parts = hq.parts.witnesses, hq.parts
        ada, ada2 = await joined(hq, operator, "ada"), await joined(hq, operator, "ada")
        await until(lambda: book.current is not None and len(book.current.witnesses) == 2)
        assert book.current.needed == 0, "one owner is no watch"
        bo = await joined(hq, operator, "bo")
        await until(lambda: len(book.current.owners) == 2)
        assert book.current.needed == 2
        clients = {node: node.client() for node in (ada, ada2, bo)}
        for node, client in clients.items():
            await cosign(node, client)
        await until(lambda: owners_of(hq) == ("ada", "bo"))
        public = JsonClient(parts.api_addresses, parts.authority.roots, None, SystemClock())
        staple = (await public.call("GET", "/v1/witnesses", None, StapleReply)).staple
        now, roots = SystemClock().wall(), parts.authority.roots
        known = verify_staple(roots, staple, Type.WITNESSES, WitnessSet, now)
        assert known == book.current
        about = {"domain": DOMAIN, "network": NETWORK, "now": now}
        assert cosigners(roots, staple, known, **about) == {"ada", "bo"}
        assert staple.logged is not None
        moved = msgspec.structs.replace(staple.logged, index=staple.logged.index + 1)
        with pytest.raises(PeerFault):
            cosigners(roots, msgspec.structs.replace(staple, logged=moved), known, **about)
        assert parse_note(await raw(hq, "/checkpoint")).text == parse_note(staple.logged.note).text
        for client in (*clients.values(), public):
            await client.close()

    run(scenario, tmp_path)


def test_cosignatures_that_are_none_are_refused(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node, other = await joined(hq, operator, "ada"), await joined(hq, operator, "bo")
        client = node.client()
        reply = await newest(client)
        text = parse_note(reply.note).text
        size = parse_checkpoint(text).size
        wrong = {
            "another's": Cosignature(size, line_of(other.identity, text)),
            "another text": Cosignature(size, line_of(node.identity, text + "x\n")),
            "no line": Cosignature(size, "hello"),
            "another size": Cosignature(size + 7, line_of(node.identity, text)),
        }
        for what, body in wrong.items():
            with pytest.raises(PeerFault):
                await client.call("POST", "/v1/cosignatures", body, Empty)
            assert hq.parts.checkpoints.cosigned is None, what
        nobody = JsonClient(node.hq, node.roots, None, SystemClock())
        for path in ("/v1/checkpoint", "/v1/checkpoint?after=0"):
            with pytest.raises(PeerFault) as caught:
                await nobody.call("GET", path, None, CheckpointReply)
            assert caught.value.code == "forbidden"
        await client.close()
        await nobody.close()

    run(scenario, tmp_path)


def test_a_report_of_two_faces_is_in_the_audit_log(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = await joined(hq, operator, "ada")
        client = node.client()
        await client.call("POST", "/v1/log-faults", LogFault("forked", b"one", b"other"), Empty)
        rows = await audit(hq)
        assert any(b"log.disputed" in row for row in rows)
        await client.close()

    run(scenario, tmp_path)


async def audit(hq: Headquarters) -> list[bytes]:
    return [kv.value for kv in (await hq.parts.store.range("/audit/")).items]


def test_the_cosigned_checkpoint_outlives_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        async with serving(home) as hq:
            await hq.leading()
            node = await joined(hq, Operator(home), "ada")
            client = node.client()
            size = await cosign(node, client)
            await until(lambda: bool(owners_of(hq)))
            await client.close()
        async with serving(home) as hq:
            cosigned = hq.parts.checkpoints.cosigned
            assert cosigned is not None
            assert cosigned.size == size
            assert cosigned.owners == ("ada",)

    asyncio.run(main())


def test_an_owners_word_is_stapled_to_the_record_it_names(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node, other = await joined(hq, operator, "ada"), await joined(hq, operator, "bo")
        client = node.client()
        record = SlotRecord(NETWORK, b"s" * 16, Version(0, 9), 1, (), ())
        staple = hq.parts.authority.sign(Type.SLOT_RECORD, record)
        body = hash_bytes(staple.signed.body)
        word = Override(NETWORK, record.slot, record.version, body)
        forged = OverrideRequest(sign(other.identity, Type.OVERRIDE, word))
        with pytest.raises(PeerFault, match="another node signed"):
            await client.call("POST", "/v1/overrides", forged, Empty)
        good = sign(node.identity, Type.OVERRIDE, word)
        await client.call("POST", "/v1/overrides", OverrideRequest(good), Empty)
        await until(lambda: hq.parts.checkpoints.attach(staple).overrides == (good,))
        rows = await audit(hq)
        assert any(b"slot.override" in row for row in rows)
        await client.close()

    run(scenario, tmp_path)


@pytest.mark.parametrize("harm", ["none", "tampered", "truncated", "forked"])
def test_one_witness_sees_what_was_done_to_the_store(tmp_path: Path, harm: str) -> None:
    """Issue 4 §6: tampering, truncation and a forked view are each detected by one witness."""

    async def main() -> None:
        home = make_home(tmp_path / "hq", make_root())
        async with serving(home) as hq:
            await hq.leading()
            node = await joined(hq, Operator(home), "ada")
            await joined(hq, Operator(home), "bo")
            size = len(hq.parts.log.tree)
            await until(lambda: hq.parts.checkpoints.published >= size)
            witness = Witness(ORIGIN, Seen())
            client = node.client()
            assert isinstance(await offered(witness, hq, client), Cosign)
            await client.close()
        await damage(home.directory / "control.db", harm, witness.seen.size)
        async with serving(home) as hq:
            await hq.leading()
            if harm == "forked":
                await joined(hq, Operator(home), "eve")
            await until(lambda: hq.parts.checkpoints.published >= len(hq.parts.log.tree) > 0)
            client = node.client()
            found = await offered(witness, hq, client)
            await client.close()
        if harm == "none":
            assert isinstance(found, Cosign), "control: an honest restart is cosigned"
        else:
            assert isinstance(found, Accuse)
            assert found.reason == ("truncated" if harm == "truncated" else "forked")

    asyncio.run(main())


async def offered(witness: Witness, hq: Headquarters, client: JsonClient) -> object:
    """What a witness makes of the newest checkpoint."""
    reply = await newest(client, witness.seen.size)
    note, checkpoint = verify_checkpoint(
        hq.parts.authority.roots,
        reply.note,
        reply.signer,
        reply.proof,
        origin=ORIGIN,
        now=SystemClock().wall(),
    )
    (message,) = witness.offer(checkpoint, note.render(), reply.consistency).send
    return message


async def damage(path: Path, harm: str, size: int) -> None:
    """Somebody with the disk, while headquarters is down."""
    store = await SqliteStore.open(path, SystemClock())
    last = leaf_key(size - 1)
    if harm == "tampered":
        await store.txn([], [Put(leaf_key(1), b"another leaf")])
    elif harm in ("truncated", "forked"):
        # Our own new certificate is logged at each start: one leaf comes back by itself.
        cut = [leaf_key(size - n) for n in (1, 2, 3)] if harm == "truncated" else [last]
        head = msgspec.msgpack.encode(LogHead(size - len(cut)))
        await store.txn([], [*map(Delete, cut), Put(LOG_HEAD, head)])
    await store.close()
