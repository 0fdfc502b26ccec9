"""Calls that a node carries (ADR 0044; seed 000: "any request is handled from any core node").

Real headquarters, real agents' fronts behind TLS; in place of Envoy a server that leads the secret
path to the front and remembers every byte that the node could see.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.hq.headquarters import ENTROPY, Operator, run

from holdfast.cli import hq_call, hq_phoenix
from holdfast.crypto.certinfo import fingerprint
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.sealedfile import make_identity, recipient_of
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_admin import AccessState, CellOrder, MemberOrder
from holdfast.hq.admin import Status, TokenItems, TokenMade, TokenOrder
from holdfast.hq.brain_view import FleetView
from holdfast.hq.config import ContinuityConfig
from holdfast.hq.front_admin import FrontView
from holdfast.hq.front_once import DONE
from holdfast.hq.home import HqHome
from holdfast.hq.main import Headquarters
from holdfast.hq.operators import OPERATORS, OperatorMade, OperatorOrder
from holdfast.hq.restored import last_restore
from holdfast.hq.snapshot import unseal
from holdfast.hq.verbs import OperatorRole
from holdfast.limits.front import FRONT_KEY_DRAWN_S, FRONT_KEY_S
from holdfast.logic.access.model import Cell, Member
from holdfast.logic.fleet.model import Role
from holdfast.node import membership
from holdfast.node.front import Front
from holdfast.node.home import Home
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Delete
from holdfast.rim.front_client import FrontClient, Where, bearer, parse_where
from holdfast.rim.https import HttpsServer
from holdfast.rim.tls import Credentials, ServerTls
from holdfast.wire.codec import pack_json
from holdfast.wire.envelope import sign
from holdfast.wire.front import CopyHead, HqAddresses, front_path
from holdfast.wire.hq import AboutReply
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.snapshot import identity_of

CLOCK = SystemClock()
ADMIN = "/admin/v1"
DAY_S = 86_400
NONE = CopyHead(b"", 0, 0, 0, 0, b"")


class Carrier:
    """A node's front behind TLS, and all that went through it."""

    def __init__(self, front: Front, home: Home) -> None:
        self.front = front
        self.home = home
        self.server = HttpsServer()
        self.seen: list[bytes] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    async def start(self, path: str) -> None:
        await self.front.start()
        with contextlib.suppress(OperationFault):  # the first copy may be in the making
            await self.front.refresh()
        app = Starlette(routes=[Mount(path, app=self._watched(self.front._application()))])
        own = Credentials.from_files(self.home.chain_file, self.home.key_file)
        await self.server.start(app, "127.0.0.1", 0, ServerTls(self.home.roots(), own, CLOCK))

    def _watched(self, inner: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            body = bytearray()

            async def hear() -> Any:
                message = await receive()
                body.extend(message.get("body", b""))
                if not message.get("more_body", False) and body:
                    self.seen.append(bytes(body))
                    body.clear()
                return message

            said = bytearray()

            async def tell(message: Any) -> None:
                said.extend(message.get("body", b""))
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    self.seen.append(bytes(said))
                await send(message)

            await inner(scope, hear, tell)

        return app

    async def stop(self) -> None:
        await self.server.stop(0.1)
        await self.front.stop()


class Scene:
    """A headquarters, an owner with a key, nodes that carry."""

    def __init__(self, hq: Headquarters, local: Operator, directory: Path) -> None:
        self.hq = hq
        self.local = local
        self.directory = directory
        self.root = fingerprint(hq.parts.authority.roots[0])
        self.key = ""
        self.carriers: list[Carrier] = []

    async def start(self, cores: int = 2) -> None:
        order = OperatorOrder("olga", OperatorRole.OWNER)
        self.key = (await self.local.call("POST", "/operators", order, OperatorMade)).key
        cell = CellOrder("c1", "c1.hold.example", "c1-core.hold.example")
        await self.local.call("POST", "/access/cells", cell, Cell)
        for number in range(cores):
            token = await self.local.token(role=Role.CORE, cell="c1", provider="drill")
            home = Home(self.directory / f"core-{number}")
            listen = f"127.0.0.1:{17_000 + number}"
            member = await membership.join(
                home,
                token,
                listen=listen,
                addresses=(listen,),
                provider="drill",
                clock=CLOCK,
                entropy=ENTROPY,
            )
            carrier = Carrier(Front(home, member, CLOCK, ENTROPY), home)
            await carrier.start(front_path(self.root))
            self.carriers.append(carrier)

    def client(self, *carriers: Carrier, root: bytes = b"") -> FrontClient:
        chosen = carriers or tuple(self.carriers)
        where = Where(tuple(each.address for each in chosen), root or self.root)
        return FrontClient(where, CLOCK, ENTROPY)

    async def ask(
        self, client: FrontClient, method: str, path: str, body: object = None, **more: Any
    ) -> tuple[int, bytes]:
        data = b"" if body is None else pack_json(body)
        key = bearer(more.pop("key", self.key))
        return await client.exchange(method, ADMIN + path, data, key, **more)

    async def stop(self) -> None:
        for carrier in self.carriers:
            await carrier.stop()


@contextlib.asynccontextmanager
async def scene(hq: Headquarters, local: Operator, directory: Path) -> AsyncIterator[Scene]:
    made = Scene(hq, local, directory)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


def play(directory: Path, story: Any, **changes: Any) -> None:
    async def scenario(hq: Headquarters, local: Operator) -> None:
        async with scene(hq, local, directory) as made:
            await story(made)

    run(scenario, directory, **changes)


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


def test_the_copy_lies_on_every_node(tmp_path: Path) -> None:
    """Sealed to people, signed by headquarters; a damaged one is not given and not kept."""
    identity = make_identity()
    recipients = ContinuityConfig((recipient_of(identity),), ("kept",))

    async def story(made: Scene) -> None:
        hq = made.hq
        async with asyncio.timeout(30):
            while any(each.front.head is None for each in made.carriers):
                await asyncio.sleep(0.2)
                for each in made.carriers:
                    with contextlib.suppress(OperationFault):
                        await each.front.refresh()
        assert hq.parts.copies.holders <= len(made.carriers)
        client = made.client()
        head, sealed = await client.newest_copy()
        snapshot = unseal(sealed, identity)
        assert snapshot.network == head.network
        assert snapshot.revision == head.revision
        with pytest.raises(UsageError):
            unseal(sealed, make_identity())
        file = made.carriers[0].front._file
        assert file is not None
        file.write_bytes(file.read_bytes()[:-1] + b"\x00")
        _, other = await client.newest_copy()
        assert other == sealed, "the next node has it whole"
        again = Front(made.carriers[0].home, made.carriers[0].front._member, CLOCK, ENTROPY)
        await asyncio.to_thread(again._load)
        assert again.head is None, "what is damaged is not kept"
        await again._hq.close()
        await client.close()

    play(tmp_path, story, continuity=recipients)


def test_copies_and_keys_outlive_headquarters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All headquarters gone: what is looked at is answered by the copy, and said to be one."""
    identity = make_identity()
    recipients = ContinuityConfig((recipient_of(identity),), ("kept",))
    opener = tmp_path / "key.txt"
    opener.write_text(identity)

    async def story(made: Scene) -> None:
        await made.local.call("POST", "/access/members", MemberOrder("ada"), Member)
        revision = await made.hq.parts.store.revision()
        async with asyncio.timeout(40):
            while (made.carriers[0].front.head or NONE).revision < revision:
                await asyncio.sleep(0.2)
                with contextlib.suppress(OperationFault):
                    await made.carriers[0].front.refresh()
        before = await made.local.call("GET", "/access", None, AccessState)
        fleet = await made.local.call("GET", "/fleet", None, FleetView)
        await made.hq._servers.api.stop(0.1)
        client = made.client()
        with pytest.raises(OperationFault):
            await made.ask(client, "GET", "/status", patience_s=1.0)
        _, sealed = await client.newest_copy()
        assert unseal(sealed, identity).domain == made.hq.config.domain
        await client.close()
        where = Where(tuple(each.address for each in made.carriers), made.root)
        monkeypatch.setenv(hq_call.AT_VARIABLE, str(where))
        with pytest.raises(UsageError, match="operator add"):
            await asyncio.to_thread(hq_call.call_hq, tmp_path, "GET", "/status", None, Status)
        monkeypatch.setenv(hq_call.KEY_VARIABLE, made.key)
        look = partial(asyncio.to_thread, hq_call.call_hq, tmp_path / "none")
        monkeypatch.setattr(hq_call, "FRONT_PATIENCE_REAL_S", 1.0)
        with pytest.raises(OperationFault):  # control: who has no key to it sees nothing
            await look("GET", "/access", None, AccessState)
        monkeypatch.setattr(hq_call, "LOOK_PATIENCE_REAL_S", 1.0)
        monkeypatch.setenv(hq_call.COPY_VARIABLE, str(opener))
        assert await look("GET", "/access", None, AccessState) == before
        assert "this is a copy" in capsys.readouterr().err
        seen = await look("GET", "/fleet", None, FleetView)
        names = [server.name for server in fleet.servers]
        assert [server.name for server in seen.servers] == names
        status = await look("GET", "/status", None, Status)
        assert not status.leading
        with pytest.raises(OperationFault):
            await look("POST", "/access/members", MemberOrder("ada"), Member)

    play(tmp_path, story, continuity=recipients)


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


def test_nodes_follow_a_headquarters_that_was_made_anew(tmp_path: Path) -> None:
    """By its signed notice alone: not an older one, not another network's."""

    async def story(made: Scene) -> None:
        client, (node, other) = made.client(), made.carriers
        view: FrontView = await made.local.call("GET", "/front", None, FrontView)
        assert (len(view.addresses), view.root) == (2, made.root.hex())
        authority = made.hq.parts.authority
        now = int(CLOCK.wall())
        moved = HqAddresses(authority.network, ("192.0.2.9:7400",), 1, now)
        assert await client.tell(authority.sign(Type.HQ_ADDRESSES, moved)) == 2
        for each in (node, other):
            member = each.home.member()
            assert member is not None
            assert member.hq == ("192.0.2.9:7400", made.hq.config.listen)
        older = msgspec.structs.replace(moved, addresses=("192.0.2.66:1",), epoch=0)
        assert await client.tell(authority.sign(Type.HQ_ADDRESSES, older)) == 0
        assert await client.tell(authority.sign(Type.HQ_ADDRESSES, moved)) == 0
        nowhere = msgspec.structs.replace(moved, addresses=("nobody",), epoch=2)
        assert await client.tell(authority.sign(Type.HQ_ADDRESSES, nowhere)) == 0
        stranger = sign(SigningKey(b"s" * 32), Type.HQ_ADDRESSES, moved)
        assert await client.tell(Staple(stranger, authority.intermediate)) == 0
        wrong = authority.sign(Type.STORE_COPY, msgspec.structs.replace(NONE))
        assert await client.tell(wrong) == 0
        status, _ = await made.ask(client, "GET", "/status")  # by the address of before
        assert status == 200
        await client.close()

    play(tmp_path, story)


def test_a_phoenix_rises_from_any_node_with_the_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words in a file and the line of fronts; wrong words open nothing; a directory is not lost."""
    words = Phrase.from_entropy(ENTROPY.bytes(32))
    recipients = ContinuityConfig((recipient_of(identity_of(words)),), ("kept",))
    paper, wrong = tmp_path / "words.txt", tmp_path / "wrong.txt"
    paper.write_text(" ".join(words.words()))
    wrong.write_text(" ".join(Phrase.from_entropy(bytes(32)).words()))

    async def story(made: Scene) -> None:
        async with asyncio.timeout(40):
            while not any(each.front.head for each in made.carriers):
                await asyncio.sleep(0.2)
                for each in made.carriers:
                    with contextlib.suppress(OperationFault):
                        await each.front.refresh()
        where = str(Where(tuple(each.address for each in made.carriers), made.root))
        raised = partial(asyncio.to_thread, hq_phoenix.phoenix)
        new = tmp_path / "new"
        with pytest.raises(UsageError, match="still answers"):
            await raised(home=new, front=where, phrase=paper)
        await made.hq._servers.api.stop(0.1)
        with pytest.raises(UsageError, match="does not open"):
            await raised(home=new, front=where, phrase=wrong)
        assert not new.exists()
        await raised(home=new, front=where, phrase=paper, address="127.0.0.1:7999")
        home = HqHome(new)
        assert home.config().addresses == ("127.0.0.1:7999",)
        assert home.identity().public == made.hq.parts.authority.identity_public
        store = await SqliteStore.open(new / "control.db", CLOCK)
        assert (await last_restore(store)).epoch == 1
        assert await store.get(OPERATORS + "olga") is not None
        await store.close()
        with pytest.raises(UsageError, match="not empty"):
            await raised(home=new, front=where, phrase=paper)
        file = next(each.front._file for each in made.carriers if each.front._file)
        await raised(home=tmp_path / "from-a-disk", source=file, phrase=paper)

    play(tmp_path, story, continuity=recipients)


def test_front_keys_turn_and_old_ones_open_for_a_while(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        desk = made.hq.parts.front
        assert desk is not None
        clock = Later(FRONT_KEY_DRAWN_S + 60)
        (first,) = desk.keys.mine
        clock = desk.keys._clock = Later(0.0)
        days = int(FRONT_KEY_DRAWN_S / DAY_S)
        for _ in range(days):
            await desk.keys.refresh()
            assert set(desk.keys.mine) == {first}
            clock.ahead_s += DAY_S
        clock.ahead_s += 60
        await desk.keys.refresh()
        (second,) = desk.keys.mine.keys() - {first}
        assert first in desk.keys.mine, "opens until what was told of it ends"
        clock.ahead_s += FRONT_KEY_S
        await desk.keys.refresh()
        assert first not in desk.keys.mine
        assert second not in desk.keys.mine, "not told anew for two days: nobody seals to it"
        told = await desk.keys.told()
        assert len(told.keys) == 1

    play(tmp_path, story)


class Later(SystemClock):
    """A wall clock that is ahead."""

    def __init__(self, ahead_s: float) -> None:
        super().__init__()
        self.ahead_s = ahead_s

    def wall(self) -> float:
        return super().wall() + self.ahead_s
