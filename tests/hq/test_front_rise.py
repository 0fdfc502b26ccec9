"""What nodes keep outlives headquarters, and becomes one again (ADR 0044; seed 000, "phoenix")."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path

import msgspec
import pytest
from tests.hq.fronts import CLOCK, DAY_S, NONE, Carrier, Later, Scene, play
from tests.hq.headquarters import ENTROPY

from holdfast.cli import hq_call, hq_phoenix
from holdfast.crypto.certinfo import cert_info
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.phrase import Phrase
from holdfast.crypto.pure import hash_bytes
from holdfast.crypto.sealedfile import make_identity, recipient_of
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.access_admin import AccessState, MemberOrder
from holdfast.hq.admin import Status
from holdfast.hq.brain_view import FleetView
from holdfast.hq.config import ContinuityConfig
from holdfast.hq.front_admin import FrontView
from holdfast.hq.home import HqHome
from holdfast.hq.join import node_row
from holdfast.hq.operators import OPERATORS
from holdfast.hq.restored import REVOKED_SINCE, last_restore
from holdfast.hq.snapshot import unseal
from holdfast.limits import API_REPLY_BYTES_MAX
from holdfast.limits.continuity import SNAPSHOT_BYTES_MAX
from holdfast.limits.front import (
    EPOCHS_AHEAD_MAX,
    FRONT_CLOCK_S,
    FRONT_KEY_DRAWN_S,
    FRONT_KEY_S,
    FRONT_LIST_S,
    HQ_ADDRESSES_MAX,
)
from holdfast.logic.access.model import Member
from holdfast.logic.fleet.model import Version
from holdfast.logic.fleet.rows import NodeState, node_key
from holdfast.logic.trust.revocation import Revocations, Revoked
from holdfast.node.front import Front
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Put
from holdfast.rim.front_client import Where
from holdfast.wire.codec import pack, pack_json, unpack, unpack_json
from holdfast.wire.envelope import sign
from holdfast.wire.front import FrontKey, FrontKeys, HqAddresses, StoreCopy
from holdfast.wire.records import Staple
from holdfast.wire.signed import Type
from holdfast.wire.snapshot import identity_of


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


def test_a_node_follows_and_dials_no_revoked_headquarters(tmp_path: Path) -> None:
    """By the node's own list; a thief's notice of before counts no more, and left room."""

    async def story(made: Scene) -> None:
        client, (node, other) = made.client(), made.carriers
        authority, now = made.hq.parts.authority, int(CLOCK.wall())
        notice = HqAddresses(authority.network, ("192.0.2.9:7400",), 1, now)

        async def tell(**changes: object) -> int:
            told = msgspec.structs.replace(notice, **changes)
            return await client.tell(authority.sign(Type.HQ_ADDRESSES, told))

        async def exclude(each: Carrier) -> None:
            intermediate = cert_info(authority.intermediate).serial
            entry = Revoked(b"", intermediate, b"", "stolen", now)
            listed = Revocations(authority.network, Version(0, 1), now, (entry,))
            await each.front.exclude(each.front._revoked.fold(listed))

        assert await tell(epoch=EPOCHS_AHEAD_MAX + 1) == 0
        assert await tell(issued_at=now + 2 * int(FRONT_CLOCK_S)) == 0
        many = tuple(f"192.0.2.{number}:1" for number in range(1, 10))
        assert await tell(addresses=many) == 0
        for epoch in (1, 2, 3):
            eight = tuple(f"192.0.2.{10 * epoch + each}:1" for each in range(8))
            assert await tell(addresses=eight, epoch=epoch) == 2
        member = node.home.member()
        assert member is not None
        assert (len(member.hq), member.hq[-1]) == (HQ_ADDRESSES_MAX, made.hq.config.listen)
        assert node.front._followed() == (3, now)
        node.front._hq.redirect([made.hq.config.listen])
        other.front._hq.redirect([made.hq.config.listen])
        await exclude(node)
        assert node.front._followed() == (0, 0), "of one that is out now"
        assert await tell(epoch=4) == 1, "control: the other node knows of no theft"
        with pytest.raises(PeerFault, match="revoked"):
            await node.front.refresh()
        other.front._hq.redirect([made.hq.config.listen])
        with contextlib.suppress(OperationFault):
            await other.front.refresh()
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
        monkeypatch.setattr(hq_phoenix, "FRONT_GONE_REAL_S", 1.0)
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
        disk = partial(raised, home=tmp_path / "from-a-disk", phrase=paper)
        with pytest.raises(UsageError, match="--at"):
            await disk(source=file)
        with pytest.raises(UsageError, match="--root"):
            await disk(source=file, force=True)
        with pytest.raises(UsageError, match="fingerprint"):
            await disk(source=file, force=True, root="ab" * 32)
        forged, bare = tmp_path / "forged.bin", tmp_path / "bare.age"
        copy = unpack(StoreCopy, file.read_bytes(), bytes_max=SNAPSHOT_BYTES_MAX)
        bare.write_bytes(copy.sealed)
        told = msgspec.structs.replace(NONE, network=made.hq.parts.authority.network)
        head = sign(SigningKey(b"s" * 32), Type.STORE_COPY, told)
        forged.write_bytes(pack(StoreCopy(Staple(head, copy.head.proof), copy.sealed)))
        for unproved in (forged, bare):
            with pytest.raises(UsageError, match=r"do not trust|nobody signed"):
                await disk(source=unproved, force=True, root=made.root.hex())
        assert not (tmp_path / "from-a-disk").exists()
        await disk(source=file, front=where)
        await raised(home=tmp_path / "bare", source=bare, phrase=paper, force=True, unsigned=True)

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


def test_a_caller_unites_what_a_few_nodes_say_of_who_is_out(tmp_path: Path) -> None:
    """A node that keeps the newest list back hides nothing; control: asked alone it does."""

    async def story(made: Scene) -> None:
        (liar, honest), authority = made.carriers, made.hq.parts.authority
        now = int(CLOCK.wall())
        listed = made.hq.parts.revocations
        intermediate = cert_info(authority.intermediate).serial
        entry = Revoked(b"", intermediate, b"", "stolen", now)
        told = unpack_json(FrontKeys, honest.front._keys, bytes_max=API_REPLY_BYTES_MAX)
        newer = listed.entries.issue((entry,), epoch=0, now=now)
        shown = msgspec.structs.replace(told, revocations=authority.sign(Type.REVOCATIONS, newer))
        honest.front._keys = pack_json(shown)
        alone, both = made.client(liar), made.client()
        assert await alone.known(liar.address)
        with pytest.raises((OperationFault, PeerFault)):
            await both.known(liar.address)
        assert entry in both.revoked
        await alone.close()
        await both.close()

    play(tmp_path, story)


def test_a_key_for_too_long_and_a_list_too_old_are_refused(tmp_path: Path) -> None:
    async def story(made: Scene) -> None:
        node, authority = made.carriers[0], made.hq.parts.authority
        now = int(CLOCK.wall())
        told = unpack_json(FrontKeys, node.front._keys, bytes_max=API_REPLY_BYTES_MAX)
        key = FrontKey(authority.network, b"k" * 1216, now + int(FRONT_KEY_S) + 2 * 3_600)
        long = msgspec.structs.replace(told, keys=(authority.sign(Type.FRONT_KEY, key),))
        old = Revocations(authority.network, Version(0, 1), now - int(FRONT_LIST_S) - 60, ())
        stale = msgspec.structs.replace(told, revocations=authority.sign(Type.REVOCATIONS, old))
        for shown, match in ((long, "no headquarters of today"), (stale, "old revocation list")):
            node.front._keys = pack_json(shown)
            client = made.client(node)
            with pytest.raises(OperationFault, match=match):
                await client.known(node.address)
            await client.close()
        node.front._keys = pack_json(told)
        client = made.client(node)
        assert await client.known(node.address)  # control
        await client.close()

    play(tmp_path, story)


def test_gone_is_what_a_node_says_plainly(tmp_path: Path) -> None:
    """Not what nodes that are silent, or no nodes of ours, leave open."""

    async def story(made: Scene) -> None:
        client, (node, other) = made.client(), made.carriers
        assert await client.lives(0.0)
        await made.hq._servers.api.stop(0.1)
        assert not await client.lives(0.0)
        await other.server.stop(0.1)
        assert not await client.lives(0.0), "one that is lost says nothing"
        node.front._carrying = 10_000
        with pytest.raises(OperationFault, match="too many calls"):
            await client.lives(0.0)
        node.front._carrying = 0
        lost = made.client(other)
        with pytest.raises(OperationFault, match="no node answers"):
            await lost.lives(0.0)
        strange = made.client(node, root=bytes(32))
        with pytest.raises(PeerFault):
            await strange.lives(0.0)
        for each in (client, lost, strange):
            await each.close()

    play(tmp_path, story)


def test_an_older_copy_is_taken_only_when_asked_for(tmp_path: Path) -> None:
    recipients = ContinuityConfig((recipient_of(make_identity()),), ("kept",))

    async def story(made: Scene) -> None:
        authority, (newer, older) = made.hq.parts.authority, made.carriers
        for each, revision in ((newer, 7), (older, 6)):
            sealed = b"sealed %d" % revision
            head = msgspec.structs.replace(
                NONE, network=authority.network, revision=revision, digest=hash_bytes(sealed)
            )
            staple = authority.sign(Type.STORE_COPY, head)
            file = tmp_path / f"copy-{revision}"
            file.write_bytes(pack(StoreCopy(staple, sealed)))
            each.front._head, each.front._file = (head, pack(staple)), file
        client = made.client()
        assert (await client.newest())[0].revision == 7
        (tmp_path / "copy-7").write_bytes(b"damaged")
        with pytest.raises(OperationFault, match="revision 7, cannot be fetched"):
            await client.newest()
        assert (await client.newest(older=True))[0].revision == 6
        await client.close()

    play(tmp_path, story, continuity=recipients)


def test_who_was_revoked_since_the_copy_stays_out(tmp_path: Path) -> None:
    """What nodes show of newer lists is on the list of the headquarters that was made anew."""

    async def story(made: Scene) -> None:
        book, store = made.hq.parts.revocations, made.hq.parts.store
        member = made.carriers[0].home.member()
        assert member is not None
        since = (
            Revoked(member.node, "", b"", "stolen", 5),
            Revoked(b"unknown here".ljust(32), "", b"", "joined later", 6),
        )
        await store.txn([], [Put(REVOKED_SINCE, pack(since))])
        await book._take_back()
        assert set(since) <= set(book.entries.snapshot_entries())
        row = await store.get(node_key(member.node))
        assert row is not None
        assert node_row(row).state is NodeState.REVOKED
        assert await store.get(REVOKED_SINCE) is None
        version = book.entries.version
        await book._take_back()
        assert book.entries.version == version, "once"

    play(tmp_path, story)


def test_rise_acts_here_on_whom_nobody_hears_and_not_on_most_without_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(made: Scene) -> None:
        monkeypatch.setenv(hq_call.AT_VARIABLE, "127.0.0.1:1")  # another headquarters, never asked
        monkeypatch.setenv(hq_call.KEY_VARIABLE, made.key)
        home = made.hq.home.directory
        fleet = await made.local.call("GET", "/fleet", None, FleetView)

        async def rise(silent: bool | None, **more: object) -> hq_phoenix.Replacements:
            servers = [msgspec.structs.replace(s, silent=bool(silent)) for s in fleet.servers]
            seen = msgspec.structs.replace(fleet, servers=tuple(servers))
            monkeypatch.setattr(hq_phoenix, "_fleet", lambda _: None if silent is None else seen)
            await asyncio.to_thread(partial(hq_phoenix.rise, home=home, json=True, **more))
            line = capsys.readouterr().out.splitlines()[-1]
            return msgspec.json.decode(line, type=hq_phoenix.Replacements)

        monkeypatch.setattr(hq_phoenix, "ANSWER_REAL_S", 0.2)
        for silent in (None, False):
            found = await rise(silent, yes=True)
            assert (len(found.waiting), found.items) == (2, ())
        names = [item.gone for item in (await rise(True)).items]
        assert len(names) == 2
        with pytest.raises(UsageError, match=f"--gone {names[0]}"):
            await rise(True, yes=True)
        with pytest.raises(UsageError, match="not known to be gone"):
            await rise(True, yes=True, gone=("nobody",))
        found = await rise(True, yes=True, gone=(names[0],))
        assert [item.gone for item in found.items] == names[:1]
        assert found.items[0].token
        assert len(made.hq.parts.revocations.entries) == 1

    play(tmp_path, story)
