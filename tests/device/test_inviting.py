"""Invites (D21): one use, ten minutes, both named, nothing to find in the mailbox afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.device.world import Fleet
from tests.fabric.world import FAST
from tests.relay.harness import Pool, today, until

from holdfast.crypto.blob import blob_id, seal, unseal
from holdfast.crypto.keys import SigningKey
from holdfast.device.group import Group
from holdfast.device.inviting import Inviter, join_group
from holdfast.device.keyring import state_device
from holdfast.device.mailbox import Guest, Mailbox, mailbox_era
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import share
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.limits import INVITE_S_MAX
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.codec import pack
from holdfast.wire.envelope import sign
from holdfast.wire.invite import Invite, InviteAnswer, InviteRequest, parse_invite
from holdfast.wire.pool import BlobClass
from holdfast.wire.signed import Type


class TimeMachine(SystemClock):
    """A clock whose wall a test sets forward."""

    ahead_s = 0.0

    def wall(self) -> float:
        return super().wall() + self.ahead_s


async def folder_of(runtime: DeviceRuntime, path: Path) -> Group:
    path.mkdir()  # noqa: ASYNC240 - a test has time
    return await share(runtime, path, path.name)


async def answered(inviter: Inviter, joining: asyncio.Task[Group]) -> Group:
    while not joining.done():
        await inviter.answer()
        await asyncio.wait({joining}, timeout=0.05)
    return joining.result()


def test_an_invite_used_twice_is_refused_and_named_to_both(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                mallory, _ = await fleet.device("mallory")
                group = await folder_of(alice, tmp_path / "shared")
                inviter = Inviter(alice)
                invite = inviter.invite(alice.key_named("shared"))
                joined = await answered(inviter, asyncio.create_task(join_group(bob, invite)))
                assert joined.id == group.id
                assert joined.era.secret == group.era.secret
                assert bob.key_named("shared").id == group.id
                with pytest.raises(UsageError, match="used by bob"):
                    await join_group(mallory, invite)
                assert not mallory.state.groups()
                await inviter.answer()
                (made,) = inviter.host.all()
                assert made.taken_by_name == "bob"
                assert made.refused == ("mallory",)
                seen = Guest(bob.state, invite)
                slot = bob.slots[invite.locator.slot]
                await slot.puller(seen.era, seen.mailbox, remember=False).read()
                names = {statement.name for _, _, statement in seen.mailbox.requests.values()}
                assert names == {"bob", "mallory"}, "the first finds the second's request too"

    asyncio.run(main())


def test_two_at_once_one_gets_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                guests = [(await fleet.device(name))[0] for name in ("bob", "carol")]
                await folder_of(alice, tmp_path / "shared")
                inviter = Inviter(alice)
                invite = inviter.invite(alice.key_named("shared"))
                joining = [asyncio.create_task(join_group(guest, invite)) for guest in guests]
                while not all(task.done() for task in joining):
                    await inviter.answer()
                    await asyncio.wait(joining, timeout=0.05)
                outcomes = [task.exception() for task in joining]
                assert sum(outcome is None for outcome in outcomes) == 1
                (refused,) = [outcome for outcome in outcomes if outcome is not None]
                (made,) = inviter.host.all()
                assert isinstance(refused, UsageError)
                assert made.taken_by_name in str(refused)
                assert len(made.refused) == 1

    asyncio.run(main())


def test_the_mailbox_and_the_invite_tell_nothing_later(tmp_path: Path) -> None:
    """Whoever finds the invite and every blob of its mailbox a year later opens no group."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                group = await folder_of(alice, tmp_path / "shared")
                inviter = Inviter(alice)
                invite = inviter.invite(alice.key_named("shared"))
                await answered(inviter, asyncio.create_task(join_group(bob, invite)))
                era = mailbox_era(invite)
                session = await pool.session("relay-eu-001", era.access, record.slot)
                await until(lambda: bob.state.store.outbox.bytes_held == 0)
                await until(lambda: alice.state.store.outbox.bytes_held == 0)
                items = (await session.list(0, 100)).items
                bodies = await session.get([item.blob for item in items])
                payloads = [unseal(era, BlobClass.LOG, body).payload for body in bodies.values()]
                assert len(payloads) == 2
                for payload in [*payloads, pack(invite), str(invite).encode()]:
                    assert group.era.secret not in payload
                rows = bob.state.database.run("select * from joins")
                assert rows == [], "the private half is gone"

    asyncio.run(main())


def test_ten_minutes(tmp_path: Path) -> None:
    async def main() -> None:
        clock = TimeMachine(FAST)
        async with Pool(tmp_path / "pool", clock=clock) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                await folder_of(alice, tmp_path / "shared")
                inviter = Inviter(alice)
                invite = inviter.invite(alice.key_named("shared"))
                joining = asyncio.create_task(join_group(bob, invite))
                await until(lambda: bob.state.database.run("select 1 from joins") != [])
                await asyncio.wait({joining}, timeout=0.3)
                clock.ahead_s = INVITE_S_MAX + 1
                with pytest.raises(OperationFault, match="nobody answered"):
                    await joining
                with pytest.raises(PeerFault, match="expired"):
                    parse_invite(str(invite), clock.wall())
                assert await inviter.answer() == 1
                (made,) = inviter.host.all()
                assert made.taken_by_name == "", "too late is not taken"
                guest = Guest(bob.state, invite)
                slot = bob.slots[record.slot]
                await guest.ask(slot, SystemEntropy(), clock.wall())
                puller = slot.puller(guest.era, guest.mailbox, remember=False)
                while True:
                    await puller.read()
                    if guest.mailbox.answers:
                        break
                with pytest.raises(UsageError, match="expired"):
                    guest.gift()

    asyncio.run(main())


def test_both_sides_may_be_killed_in_between(tmp_path: Path) -> None:
    """The inviter decided and died before answering; the joiner asked and died before reading."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                await folder_of(alice, tmp_path / "shared")
                inviter = Inviter(alice)
                invite = inviter.invite(alice.key_named("shared"))
                guest = Guest(bob.state, invite)
                slot = await bob.slot(record.slot, guest.era)
                await guest.ask(slot, SystemEntropy(), pool.clock.wall())
                await until(lambda: bob.state.store.outbox.bytes_held == 0)
                await fleet.shut(bob)
                box = Mailbox()
                await alice.slots[record.slot].puller(guest.era, box, remember=False).read()
                for name, (signed, _, statement) in box.requests.items():
                    inviter.host._decide(invite, name, signed, statement, pool.clock.wall())
                await fleet.shut(alice)
                alice, bob = await fleet.reopen("alice"), await fleet.reopen("bob")
                inviter = Inviter(alice)
                group = await answered(inviter, asyncio.create_task(join_group(bob, invite)))
                assert group.name == "shared"
                assert len(bob.state.groups()) == 1

    asyncio.run(main())


# --- forgeries -----------------------------------------------------------------------------------
ROOT, DEVICE, OTHER = (SigningKey(bytes([n]) * 32) for n in (1, 2, 3))


def request_by(device: SigningKey, about: SigningKey, root: SigningKey) -> bytes:
    statement = state_device(root, about.public, "name", 1, 0)
    request = InviteRequest(b"i" * 32, statement, b"w", 0)
    return pack(sign(device, Type.INVITE_REQUEST, request))


def test_a_request_needs_a_person_who_vouches_for_its_device() -> None:
    mailbox = Mailbox()
    mailbox.take(b"", request_by(DEVICE, DEVICE, ROOT))
    assert len(mailbox.requests) == 1
    with pytest.raises(PeerFault, match="nobody vouches"):
        mailbox.take(b"", request_by(OTHER, DEVICE, ROOT))
    for garbage in (b"", b"\x93", pack((b"\x09", b"s" * 32, b"x" * 64))):
        with pytest.raises(PeerFault):
            mailbox.take(b"", garbage)
    assert len(mailbox.requests) == 1


def test_only_the_inviter_answers(tmp_path: Path) -> None:
    """Somebody who photographed the invite cannot lure the joiner into a group of their own."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                alice, _ = await fleet.device("alice")
                bob, _ = await fleet.device("bob")
                await folder_of(alice, tmp_path / "shared")
                invite: Invite = Inviter(alice).invite(alice.key_named("shared"))
                guest = Guest(bob.state, invite)
                slot = await bob.slot(record.slot, guest.era)
                await guest.ask(slot, SystemEntropy(), pool.clock.wall())
                answer = InviteAnswer(invite.id, guest._request, b"", OTHER.public, "mallory", 0)
                forged = pack(sign(OTHER, Type.INVITE_ANSWER, answer))
                body = seal(guest.era, BlobClass.LOG, forged, today())
                for name in ("relay-eu-001", "relay-eu-002"):
                    session = await pool.session(name, guest.era.access, record.slot)
                    await session.push(BlobClass.LOG, [body])
                puller = slot.puller(guest.era, guest.mailbox, remember=False)
                await puller.read()
                assert blob_id(body)
                assert len(guest.mailbox.answers) == 1
                assert guest.gift() is None
                assert guest.taken_by_another() == ""

    asyncio.run(main())
