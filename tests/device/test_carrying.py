"""Devices that carry for each other: copies, halves, archives, recovery (issue 5.7-5.9)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.device.test_pairing import LOOPBACK, Host
from tests.device.world import Fleet, tree
from tests.fabric.world import FAST
from tests.relay.harness import Pool

from holdfast.crypto.keys import SigningKey
from holdfast.device.agent import Agent
from holdfast.device.friends import keep
from holdfast.device.locking import lock_folder, plaintext, unlock_folder
from holdfast.device.peering.letters import Peer
from holdfast.device.peering.meeting import guest
from holdfast.device.peering.peers import offer, peer_named, peers
from holdfast.device.persons import device_named, revoke
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place, share
from holdfast.device.state import DeviceState, read_seed
from holdfast.device.tend import tend
from holdfast.device.vault.archive import Archives
from holdfast.device.vault.halves import Half
from holdfast.device.vault.holding import OfTag
from holdfast.device.vault.layers import Recovery, repush
from holdfast.device.vault.split import fetch_half, join, split
from holdfast.device.vault.store import Sum, VaultStore
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.logic.placement import check_drop, count
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy

SECRET = b"what nobody else may read " * 4_000
Story = Callable[["Three"], Awaitable[None]]


class Three:
    """Ada's laptop and phone, and Bob's phone; each with its agent."""

    def __init__(self, fleet: Fleet, home: Path) -> None:
        self.fleet = fleet
        self.home = home
        self.agents: dict[str, Agent] = {}
        self.words: Any = None

    async def begin(self) -> None:
        self.laptop, self.words = await self.fleet.device("laptop")
        self.phone, _ = await self.fleet.device("phone", self.words)
        self.bob, _ = await self.fleet.device("bob")
        for runtime in (self.laptop, self.phone, self.bob):
            await self.agent(runtime)
        hosting = Host(self.laptop, offer(self.laptop, "alice"))
        waiting = await hosting.waiting()
        await keep(
            self.bob,
            await guest(self.bob, offer(self.bob, "bob"), waiting.code, waiting.addresses[0]),
        )
        await keep(self.laptop, await hosting.task)
        await self.rounds()

    async def agent(self, runtime: DeviceRuntime) -> Agent:
        agent = self.agents[runtime.state.name] = Agent(runtime)
        await agent.start(*LOOPBACK)
        return agent

    async def rounds(self, *runtimes: DeviceRuntime) -> None:
        for _ in range(2):
            for runtime in runtimes or (self.laptop, self.phone, self.bob):
                await tend(runtime, everywhere=True)
                await runtime.reach(Stage.STORED, 20.0)

    async def share(self) -> None:
        (self.home / "files").mkdir()
        (self.home / "files" / "diary").write_bytes(SECRET)
        self.group = await share(self.laptop, self.home / "files", "diary")
        await self.laptop.folders[self.group.id].sync()
        await self.laptop.reach(Stage.REPLICATED, 60.0)
        await self.rounds()


def play(tmp_path: Path, story: Story) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                three = Three(fleet, tmp_path)
                try:
                    await three.begin()
                    await story(three)
                finally:
                    for agent in three.agents.values():
                        await agent.stop()

    asyncio.run(main())


def test_everything_is_mirrored_on_all_three_and_counted(tmp_path: Path) -> None:
    """Seed 003, data store: the base case."""

    async def story(three: Three) -> None:
        await three.share()
        assert [peer.name for peer in peers(three.laptop)] == ["phone", "bob's bob"]
        swept = await three.agents["laptop"].sweep()
        assert swept.from_pool > 3
        assert swept.sent >= 2 * swept.from_pool
        for group in await three.agents["laptop"].copies():
            assert group.copies.least == 3
            assert not group.copies.at_risk
        await three.agents["laptop"].check_drop(["bob's bob"])
        with pytest.raises(UsageError, match="fewer than 2 copies"):
            await three.agents["laptop"].check_drop(["bob's bob", "phone"])
        bobs = three.agents["bob"].vault
        assert {era.tag for era in three.group.eras} <= set(bobs.tags())
        for path in (three.bob.state.home / "vault").rglob("*"):
            assert not path.is_file() or b"nobody else" not in path.read_bytes()
        await three.agents["phone"].desk.stop()
        await three.agents["bob"].desk.stop()
        (diary,) = [g for g in await three.agents["laptop"].copies() if g.name == "diary"]
        assert set(diary.unknown) == {"phone", "bob's bob"}
        assert diary.copies.at_risk == diary.copies.blobs > 0

    play(tmp_path, story)


def test_a_split_key_opens_with_a_carrier_and_not_without(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        await three.share()
        await split(three.laptop, [peer_named(three.laptop, "bob")])
        home = three.laptop.state.home
        await three.agents.pop("laptop").stop()
        await three.fleet.shut(three.laptop)
        state = DeviceState.open(home, three.fleet.pool.clock)
        try:
            assert state.needs_half
            with pytest.raises(OperationFault, match="half"):
                state.groups()
            who = await fetch_half(state, three.fleet.pool.clock, SystemEntropy())
            assert who == "bob's bob"
            assert [key.name for key in state.groups()] == ["diary"]
        finally:
            state.close()
        await three.agents["bob"].desk.stop()
        state = DeviceState.open(home, three.fleet.pool.clock)
        try:
            with pytest.raises(OperationFault, match="start one of them"):
                await fetch_half(state, three.fleet.pool.clock, SystemEntropy())
            with pytest.raises(OperationFault):
                state.use_half(bytes(32))
        finally:
            state.close()

    play(tmp_path, story)


def test_a_carrier_gives_no_half_to_a_device_that_is_out(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        await split(three.phone, [peer_named(three.phone, "bob")])
        await revoke(three.laptop, device_named(three.laptop, "phone"), three.words.root())
        assert await fetch_half(three.phone.state, three.phone.clock, SystemEntropy())
        await three.agents["laptop"].sweep()
        bob = peer_named(three.laptop, "bob")
        with pytest.raises(UsageError, match="out"):
            await fetch_half(three.phone.state, three.phone.clock, SystemEntropy())
        stranger = Peer(bob.key, bob.wrap, bob.addresses, "bob")
        with pytest.raises(UsageError, match="no such half"):
            await three.agents["laptop"].writer.ask(stranger, "half", Half(bytes(32)), Half)

    play(tmp_path, story)


def test_an_archive_needs_two_of_the_chosen_devices(tmp_path: Path) -> None:
    """Seed 003, operational security: the second dialogue."""

    async def story(three: Three) -> None:
        archives = Archives(three.laptop, three.agents["laptop"])
        devices = [peer_named(three.laptop, name) for name in ("phone", "bob")]
        text = b"an old conversation " * 100_000
        made = await archives.add("summer 2019", text, devices)
        assert [a.title for a in archives.all()] == ["summer 2019"]
        assert await archives.open(made.name, devices) == text
        await three.rounds()
        on_phone = Archives(three.phone, three.agents["phone"])
        assert [a.title for a in on_phone.all()] == ["summer 2019"]
        assert await on_phone.open(made.name, [peer_named(three.phone, "bob")]) == text
        with pytest.raises(OperationFault, match="two devices"):
            await archives.open(made.name, [])
        with pytest.raises(UsageError):
            await Archives(three.bob, three.agents["bob"]).open(made.name, [])
        with pytest.raises(UsageError, match="one more device"):
            await archives.add("alone", b"x", [])

    play(tmp_path, story)


def test_a_locked_folder_leaves_no_plaintext_and_comes_back(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        await three.share()
        key = three.laptop.key_named("diary")
        assert plaintext(three.laptop.state) == [tmp_path / "files"]
        await lock_folder(three.laptop, key, 60.0)
        assert not (tmp_path / "files").exists()
        assert plaintext(three.laptop.state) == []
        assert not list((three.laptop.state.home / "folders").iterdir())
        await unlock_folder(three.laptop, key)
        assert tree(tmp_path / "files") == {"diary": SECRET}

    play(tmp_path, story)


def test_recovery_names_the_layers_and_repush_fills_a_fresh_replica(tmp_path: Path) -> None:
    """Seed 004 §9-10: walk down; give back to a fresh replica."""

    async def story(three: Three) -> None:
        await three.share()
        for agent in list(three.agents.values()):
            await agent.stop()
        three.agents.clear()
        again, _ = await three.fleet.device("again", three.words)
        agent = await three.agent(again)
        layers = await Recovery(again, agent, lambda layer: None).run()
        served = {layer.layer: layer for layer in layers}
        assert served["vault"].silent == ["laptop", "phone"]
        assert served["vault"].blobs == served["friends"].blobs == 0
        assert served["relays"].blobs > 3
        assert "stub" in served["cold"].why
        await place(again, again.key_named("diary"), tmp_path / "back")
        done = await again.folders[three.group.id].sync(everywhere=True)
        assert not done.missing
        assert tree(tmp_path / "back") == {"diary": SECRET}

        pool = three.fleet.pool
        replica = pool.servers["replica-eu-002"]
        await replica.stop()
        shutil.rmtree(replica.home / "state")
        pool.background = False
        await replica.start()
        (group,) = again.groups.values()
        missing = await repush(again, agent)
        assert missing.servers.get("replica-eu-002", 0) > 3
        assert (await repush(again, agent)).servers.get("replica-eu-002", 0) == 0
        assert group.name == "diary"

    play(tmp_path, story)


def test_a_passphrase_locks_the_device(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        home = three.phone.state.home
        three.phone.state.lock_key("correct horse battery staple")
        await three.agents.pop("phone").stop()
        await three.fleet.shut(three.phone)
        with pytest.raises(UsageError, match="locked"):
            DeviceState.open(home, three.fleet.pool.clock)
        with pytest.raises(UsageError, match="wrong"):
            read_seed(home, lambda: "battery staple")
        state = DeviceState.open(
            home, three.fleet.pool.clock, passphrase=lambda: "correct horse battery staple"
        )
        try:
            assert state.keyring_secret
            state.unlock_key()
        finally:
            state.close()
        DeviceState.open(home, three.fleet.pool.clock).close()
        join(three.laptop.state)

    play(tmp_path, story)


def test_letters_for_others_strangers_and_false_proofs_are_refused(tmp_path: Path) -> None:
    async def story(three: Three) -> None:
        bob, writer = peer_named(three.laptop, "bob"), three.agents["laptop"].writer
        tag = three.laptop.keyring.era.tag
        with pytest.raises(UsageError, match="proof of access"):
            await writer.ask(bob, "sum", OfTag(tag), Sum)
        with pytest.raises(UsageError, match="proof of access"):
            await writer.ask(bob, "sum", OfTag(tag), Sum, [SigningKey(bytes(32))])
        with pytest.raises(UsageError, match="no verb"):
            await writer.ask(bob, "delete", OfTag(tag), Sum)
        phone = peer_named(three.laptop, "phone")
        misled = Peer(phone.key, phone.wrap, bob.addresses, "phone")
        with pytest.raises(OperationFault):
            await writer.ask(misled, "sum", OfTag(tag), Sum, [three.laptop.keyring.era.access])

    play(tmp_path, story)


def test_the_vault_keeps_what_it_is_named_by(tmp_path: Path) -> None:
    from tests.fabric.world import seal

    from holdfast.crypto.era import Era

    era = Era(bytes(32), bytes(16))
    store = VaultStore(tmp_path / "vault")
    bodies = [seal(era, 2, b"%d" % n * 50, 20_000) for n in range(5)]
    assert store.put(era.tag, 2, bodies) == 5
    assert store.put(era.tag, 2, bodies) == 0
    assert store.sum(era.tag).count == 5
    victim = store.items(era.tag)[0].blob
    path = next((tmp_path / "vault" / "blobs").rglob(victim.hex()))
    path.write_bytes(b"\x00" * 1_024)
    assert store.get(victim) is None
    assert list(store.verify(era.tag)) == [victim]
    assert store.sum(era.tag).count == 4
    assert store.put(era.tag, 2, bodies) == 1
    with pytest.raises(PeerFault):
        store.put(era.tag, 2, [b"no blob"])
    store.forget(era.tag)
    assert store.tags() == []
    assert not [p for p in (tmp_path / "vault" / "blobs").rglob("*") if p.is_file()]
    store.close()


def test_a_holder_goes_only_while_two_copies_stay() -> None:
    """Issue 5.8: refuses to drop below."""
    a, b, c = (frozenset(s.split()) for s in ("x y z", "x y", "z x"))
    held = {"laptop": a, "phone": b, "bob": c}
    wanted = a | b | c
    found = count(wanted, held)  # type: ignore[type-var]
    assert (found.blobs, found.least, found.at_risk) == (3, 2, 0)
    with pytest.raises(UsageError, match="without bob, 1 of 3"):
        check_drop("bob", wanted, held)  # type: ignore[type-var]
    check_drop("bob", wanted, held | {"bob's laptop": wanted})  # type: ignore[type-var]
