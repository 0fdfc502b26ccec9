"""Calls that a node carries (ADR 0044; seed 000: "any request is handled from any core node").

Real headquarters, real agents' fronts behind TLS; in place of Envoy a server that leads the secret
path to the front and remembers every byte that the node could see.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request
from tests.hq.fronts import Scene, play
from tests.hq.headquarters import ENTROPY

from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_admin import AccessState, MemberOrder
from holdfast.hq.admin import Status, TokenItems, TokenMade, TokenOrder
from holdfast.hq.front_once import DONE
from holdfast.limits.front import FRONT_AT_ONCE_MAX
from holdfast.logic.access.model import Member
from holdfast.logic.fleet.model import Role
from holdfast.node import front
from holdfast.rim.control.store import Delete
from holdfast.rim.front_client import bearer, parse_where
from holdfast.wire.codec import pack_json
from holdfast.wire.front import front_path
from holdfast.wire.hq import AboutReply


def test_a_verb_through_a_node_is_the_verb(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        for carrier in made.carriers:
            client = made.client(carrier)
            status, data = await made.ask(client, "GET", "/access")
            assert status == 200
            direct = await made.local.call("GET", "/access", None, AccessState)
            assert msgspec.json.decode(data, type=AccessState) == direct
            status, data = await client.exchange("GET", "/v1/about", b"", "")
            assert (status, msgspec.json.decode(data, type=AboutReply).at > 0) == (200, True)
            await client.close()

    play(tmp_path, story)


def test_who_has_no_key_or_the_local_one_is_refused(tmp_path: Path) -> None:
    """The key in admin.json is for whoever owns the disk: it acts alone and does not travel."""

    async def story(made: Scene) -> None:
        client = made.client()
        for key in ("", "hfop1" + "0" * 64, made.hq.home.admin().key):
            status, _ = await made.ask(client, "GET", "/status", key=key)
            assert status == 401
        status, _ = await made.ask(client, "GET", "/status")
        assert status == 200  # control
        status, _ = await client.exchange("GET", "/v1/desired", b"", "")
        assert status == 403, "the carrier's own rights are not the caller's"
        await client.close()

    play(tmp_path, story)


def test_a_call_is_done_once_through_whichever_node(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        async def members() -> int:
            return len((await made.local.call("GET", "/access", None, AccessState)).members)

        before, id = await members(), ENTROPY.bytes(16)
        client, again = made.client(made.carriers[0]), made.client(made.carriers[1])
        status, first = await made.ask(
            client, "POST", "/access/members", MemberOrder("ada"), call_id=id
        )
        assert status == 200
        assert msgspec.json.decode(first, type=Member).owner == "ada"
        # Somebody who saw the bytes sends them again, through the other node.
        sealed = next(data for data in made.carriers[0].seen if data.startswith(b"\x01\x01"))
        status, replayed = await again._nodes[made.carriers[1].address].exchange(
            "POST", front_path(made.root) + "/ask", sealed
        )
        assert status == 200
        assert first not in replayed
        assert await members() == before + 1
        # Control: with the row of what was done lost, the replay does it again.
        await made.hq.parts.store.txn([], [Delete(DONE + id.hex())])
        await again._nodes[made.carriers[1].address].exchange(
            "POST", front_path(made.root) + "/ask", sealed
        )
        assert await members() == before + 2
        # Another call under the same id is refused; a call with an id of its own is done.
        status, _ = await made.ask(again, "POST", "/access/members", MemberOrder("eve"), call_id=id)
        assert status == 409
        status, _ = await made.ask(again, "POST", "/access/members", MemberOrder("eve"))
        assert status == 200
        assert await members() == before + 3
        await client.close()
        await again.close()

    play(tmp_path, story)


def test_a_repeated_call_gets_the_answer_it_had(tmp_path: Path) -> None:
    """The node's answer is lost: the caller asks again, and gets the token that was made."""

    async def story(made: Scene) -> None:
        client = made.client()
        lost, real = [], client._nodes[made.carriers[0].address].exchange

        async def lose(method: str, path: str, payload: bytes, **more: Any) -> Any:
            answer = await real(method, path, payload, **more)
            if method == "POST" and not lost:
                lost.append(answer)
                raise OperationFault("the node was cut off")
            return answer

        client._nodes[made.carriers[0].address].exchange = lose  # type: ignore[method-assign]
        order = TokenOrder(role=Role.RELAY, region="eu")
        status, data = await made.ask(client, "POST", "/tokens", order)
        token = msgspec.json.decode(data, type=TokenMade)
        items = await made.local.call("GET", "/tokens", None, TokenItems)
        assert (status, len(lost)) == (200, 1)
        relays = [item for item in items.items if item.role is Role.RELAY]
        assert [item.hash for item in relays] == [token.hash], "one token, and it is this one"
        rows = (await made.hq.parts.store.range(DONE)).items
        assert rows
        assert not any(token.token.encode() in row.value for row in rows)
        await client.close()

    play(tmp_path, story)


def test_what_broke_off_is_not_made_again_blindly(tmp_path: Path) -> None:
    """The store fails after the token was made: a repeat is told that nobody knows."""

    async def story(made: Scene) -> None:
        client, id = made.client(), ENTROPY.bytes(16)
        audit = made.hq.parts.audit
        real, broken = audit.line, []

        async def line(verb: str, subject: str, **detail: Any) -> None:
            if verb == "token.created" and not broken:
                broken.append(verb)
                raise OperationFault("the store is gone just now")
            await real(verb, subject, **detail)

        audit.line = line  # type: ignore[method-assign]
        order = TokenOrder(role=Role.RELAY, region="eu")

        async def relays() -> int:
            items = (await made.local.call("GET", "/tokens", None, TokenItems)).items
            return sum(item.role is Role.RELAY for item in items)

        status, data = await made.ask(client, "POST", "/tokens", order, call_id=id)
        assert (status, broken) == (409, ["token.created"])
        assert b"nobody knows" in data
        assert await relays() == 1, "made once, and not again by the caller's second try"
        status, _ = await made.ask(client, "POST", "/tokens", order)
        assert (status, await relays()) == (200, 2)  # under an id of its own
        await client.close()

    play(tmp_path, story)


def test_a_row_that_was_written_and_not_begun_is_taken_up(tmp_path: Path) -> None:
    """Writing the row failed, and happened: this process knows that it never began."""

    async def story(made: Scene) -> None:
        desk = made.hq.parts.front
        assert desk is not None
        store, failed = made.hq.parts.store, []
        real = store.txn

        async def txn(compares: Any, success: Any, failure: Any = ()) -> Any:
            reply = await real(compares, success, failure)
            if not failed and success and getattr(success[0], "key", "").startswith(DONE):
                failed.append(success[0].key)
                raise OperationFault("the answer of the store was lost")
            return reply

        store.txn = txn  # type: ignore[method-assign]
        client = made.client()
        status, data = await made.ask(client, "POST", "/access/members", MemberOrder("ada"))
        assert (status, len(failed)) == (200, 1)
        state = await made.local.call("GET", "/access", None, AccessState)
        assert [m.id for m in state.members] == [msgspec.json.decode(data, type=Member).id]
        await client.close()

    play(tmp_path, story)


def test_the_node_learns_nothing(tmp_path: Path) -> None:
    """Neither key nor path nor body, and the size of a class; control: unsealed they are found."""

    async def story(made: Scene) -> None:
        (node, *_), client = made.carriers, made.client(made.carriers[0])
        secrets = (made.key.encode(), b"/access/members", b"/tokens", b"zebra")
        node.seen.clear()
        sizes = set()
        for method, path, body in (
            ("GET", "/status", None),
            ("GET", "/tokens", None),
            ("POST", "/access/members", MemberOrder("zebra")),
            ("POST", "/tokens", TokenOrder(role=Role.RELAY, region="eu", owner="zebra")),
        ):
            before = len(node.seen)
            status, data = await made.ask(client, method, path, body)
            assert status == 200
            secrets += (data,)
            asked, answered = node.seen[-2:]
            assert len(node.seen) - before in (2, 3)  # once, the keys
            sizes.add((len(asked), len(answered)))
        assert len(sizes) == 1
        told = b"".join(node.seen)
        assert not [secret for secret in secrets if secret in told]

        bare = pack_json(MemberOrder("zebra")) + bearer(made.key).encode()
        await client._nodes[node.address].exchange("POST", front_path(made.root) + "/ask", bare)
        assert b"zebra" in b"".join(node.seen), "the recorder sees what is not sealed"
        await client.close()

    play(tmp_path, story)


def test_another_network_and_a_guessed_path_are_no_front(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        client = made.client(root=bytes(32))
        with pytest.raises(PeerFault, match="no front of this network"):
            await made.ask(client, "GET", "/status")
        await client.close()

    play(tmp_path, story)


def test_garbage_is_the_callers_matter(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        client, node = made.client(), made.carriers[0]
        way = client._nodes[node.address]
        for junk in (b"", b"\x01", b"\x01\x01" + bytes(2_000), b"\x02" + bytes(5_000), bytes(900)):
            status, _ = await way.exchange("POST", front_path(made.root) + "/ask", junk)
            assert status in (400, 503)
        status, data = await way.exchange(
            "POST", front_path(made.root) + "/ask", bytes(2 * 1024 * 1024)
        )
        assert status == 413
        assert b"too-large" in data
        status, _ = await made.ask(client, "GET", "/status")
        assert status == 200
        await client.close()

    play(tmp_path, story)


def test_a_body_that_drips_takes_no_place_and_has_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "FRONT_BODY_REAL_S", 0.5)

    async def drip() -> Any:
        await asyncio.sleep(0.05)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def story(made: Scene) -> None:
        node, scope = made.carriers[0].front, {"type": "http", "method": "POST", "headers": []}
        tasks = [
            asyncio.create_task(node._ask(Request(scope, drip))) for _ in range(FRONT_AT_ONCE_MAX)
        ]
        await asyncio.sleep(0.1)
        assert node._carrying == 0
        client = made.client(made.carriers[0])
        status, _ = await made.ask(client, "GET", "/status", patience_s=0.0)
        assert status == 200
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {getattr(fault, "code", "") for fault in ended} == {"timeout"}
        await client.close()

    play(tmp_path, story)


def test_where_is_parsed() -> None:
    text = f"front://192.0.2.1:443,192.0.2.2:443#{'ab' * 32}"
    where = parse_where(text)
    assert str(where) == text
    assert where.addresses == ("192.0.2.1:443", "192.0.2.2:443")
    for wrong in (
        "front://#" + "ab" * 32,
        "front://192.0.2.1:443#ab",
        "192.0.2.1:443",
        "front://x",
    ):
        with pytest.raises(UsageError):
            parse_where(wrong)


def test_status_is_told_by_who_leads(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        client = made.client()
        status, data = await made.ask(client, "GET", "/status")
        assert status == 200
        assert msgspec.json.decode(data, type=Status).leading
        made.hq.parts.brain, kept = None, made.hq.parts.brain
        with pytest.raises(OperationFault, match="does not lead"):
            await made.ask(client, "GET", "/status", patience_s=0.5)
        made.hq.parts.brain = kept
        await client.close()

    play(tmp_path, story)
