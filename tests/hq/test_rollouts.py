"""Headquarters moves a release through the fleet, also when it starts anew in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from tests.hq.brain_world import BrainWorld, run
from tests.hq.headquarters import Node, Operator, make_root
from tests.hq.headquarters import run as run_hq
from tests.hq.test_desired import NODES, Scenario, seen
from tests.hq.test_desired import run as run_book
from tests.hq.test_operators import People

from holdfast.cli.release_key import make_release_key, read_release_key
from holdfast.crypto.pure import hash_bytes
from holdfast.errors import OperationFault, PeerFault, UsageError
from holdfast.hq.brain_view import FleetView
from holdfast.hq.desired import DesiredBook
from holdfast.hq.main import Headquarters
from holdfast.hq.releases import put_archive
from holdfast.hq.rollouts import Rollouts
from holdfast.hq.upgrade_admin import ReleaseItems, ReleaseOrder, UpgradeOrder, UpgradeView
from holdfast.hq.verbs import Done
from holdfast.logic.fleet.events import Rebalance, StopRebalance
from holdfast.logic.fleet.rollout import Word
from holdfast.logic.fleet.rollout_rows import (
    RELEASES,
    ROLLOUT,
    Phase,
    PlaceRow,
    ReleaseRow,
    RolloutRow,
    RolloutState,
    place_key,
)
from holdfast.logic.fleet.rows import FreezeRow
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.store import ControlStore, Put
from holdfast.rim.entropy import SeededEntropy, SystemEntropy
from holdfast.wire.codec import pack, unpack_json
from holdfast.wire.records import Staple
from holdfast.wire.release import Knobs, Release, release_id, sign_release
from holdfast.wire.signed import Signed
from holdfast.wire.versions import WIRE

NEW = b"n" * 32


class Upgraded:
    """A world whose nodes do what the rows tell them, each `after` a turn."""

    def __init__(self, world: BrainWorld) -> None:
        self.world = world
        self.runs: dict[bytes, bytes] = {}
        self.refuses: set[str] = set()
        self.defers: set[str] = set()
        self.rollouts = self.process()

    def process(self) -> Rollouts:
        """A headquarters process that has just come to lead."""
        world = self.world
        store = cast(ControlStore, world.store)
        audit = cast(Any, world._audit)
        return Rollouts(store, world.brain, audit, world.clock, SeededEntropy(3))

    async def start(self, **changes: Any) -> RolloutRow:
        order: dict[str, Any] = {
            "at_once": 1, "soak_s": 120.0, "halting": True, "required_at": 0.0,
        }  # fmt: skip
        return await self.rollouts.start(NEW, "eu", "ann", **(order | changes))

    async def turn(self) -> None:
        world = self.world
        await world.run(30.0, 10.0)
        for server in self.rollouts.servers():
            node = world.server(server.name).node
            kv = world.store.rows.get(place_key(server.name))
            place = msgspec.msgpack.decode(kv.value, type=PlaceRow) if kv else PlaceRow("")
            refused = place.release == NEW and server.name in self.refuses
            self.runs[node] = b"" if refused else place.release
            beat = msgspec.structs.replace(
                world.beat(node),
                release=self.runs[node],
                proved=True,
                refused=NEW if refused else b"",
                deferred_until=1e12 if server.name in self.defers else 0.0,
                refused_why="it died" if refused else "",
            )
            self.rollouts.beat(node, beat)
        await self.rollouts.turn()

    async def until(self, state: RolloutState, turns: int = 100) -> RolloutRow:
        for _ in range(turns):
            row, _ = await self.rollouts.current()
            assert row is not None
            if row.state is state:
                return row
            await self.turn()
        raise AssertionError(f"{row.state}, not {state}")


def test_a_release_goes_through_the_fleet_and_a_new_leader_goes_on() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        await fleet.start()
        for _ in range(12):
            await fleet.turn()
        _, before = await fleet.rollouts.current()
        kept = [place.name for place in before.values() if place.phase is Phase.KEPT]
        assert 0 < len(kept) < 6
        fleet.rollouts = fleet.process()
        row, places = await fleet.rollouts.current()
        assert row is not None
        assert (row.release, places) == (NEW, before), "nothing is forgotten"
        await fleet.until(RolloutState.DONE)
        assert set(fleet.runs.values()) == {NEW}
        assert {"rollout.ordered", "rollout.kept", "rollout.done"} <= set(world.verbs())
        assert any("is well on release" in e.text for e in world.brain.view().timeline)
        await fleet.rollouts.order(Word.GO_BACK, "ann")
        await fleet.until(RolloutState.BACKED)
        assert set(fleet.runs.values()) == {b""}

    run(story)


def test_a_node_that_went_back_by_itself_halts_it() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        fleet.refuses = {"relay-eu-001"}
        await fleet.start()
        row = await fleet.until(RolloutState.BACKED)
        assert row.reason == "relay-eu-001 refused it: it died"
        assert sum(verb == "rollout.ordered" for verb in world.verbs()) == 1

    run(story)


def test_a_failed_write_changes_nothing() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        world.store.broken = True
        with pytest.raises(OperationFault):
            await fleet.start()
        world.store.broken = False
        assert (await fleet.rollouts.current())[0] is None
        await fleet.start()
        with pytest.raises(UsageError, match="canary"):
            await fleet.start()

    run(story)


def test_a_frozen_headquarters_and_a_new_one_decide_nothing() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        await fleet.start()
        await fleet.turn()
        assert "rollout.ordered" not in world.verbs(), "it has not listened yet"
        for _ in range(4):
            await fleet.turn()
        assert "rollout.ordered" in world.verbs()
        fleet.refuses = {server.name for server in fleet.rollouts.servers()}
        view = world.brain.view()
        frozen = msgspec.structs.replace(view, freeze=FreezeRow(1.0, 6, 6, ("amber", "birch")))
        real, world.brain.view = world.brain.view, lambda: frozen  # type: ignore[method-assign]
        for _ in range(5):
            await fleet.turn()
        world.brain.view = real  # type: ignore[method-assign]
        await fleet.turn()
        assert "rollout.regression" not in world.verbs()
        await fleet.until(RolloutState.BACKED)
        assert "rollout.regression" in world.verbs()

    run(story)


def test_an_owner_who_defers_is_not_ordered_by_a_new_leader() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        fleet.defers = {"relay-eu-001"}
        fleet.rollouts = fleet.process()
        await fleet.start()
        for _ in range(3):
            fleet.rollouts = fleet.process()
            await fleet.rollouts.turn()
            await fleet.turn()
        await fleet.until(RolloutState.DONE)
        _, places = await fleet.rollouts.current()
        assert places["relay-eu-001"].phase is Phase.WAITING
        assert world.verbs().count("rollout.ordered") == 5

    run(story)


def test_a_server_without_slots_lacks_nothing() -> None:
    """It has nothing to be filled with, and says that it is not."""

    async def story(world: BrainWorld) -> None:
        fleet, real, idle = Upgraded(world), world.brain.view, "relay-eu-001"

        def view() -> FleetView:
            now = real()
            servers = [
                msgspec.structs.replace(s, slots=0, filled=False) if s.name == idle else s
                for s in now.servers
            ]
            return msgspec.structs.replace(now, servers=tuple(servers))

        world.brain.view = view  # type: ignore[method-assign]
        await fleet.start()
        await fleet.until(RolloutState.DONE)
        world.brain.view = real  # type: ignore[method-assign]

    run(story)


def test_no_server_moves_during_an_upgrade() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        await fleet.rollouts.check_over()
        await world.call(world.brain.order(Rebalance("ann", 1)))
        with pytest.raises(UsageError, match="servers move"):
            await fleet.start()
        await world.call(world.brain.order(StopRebalance("ann")))
        await fleet.start()
        with pytest.raises(UsageError, match="upgrade is under way"):
            await fleet.rollouts.check_over()
        await fleet.until(RolloutState.DONE)
        await fleet.rollouts.check_over()

    run(story)


def test_orders_that_cannot_be_say_what_to_do() -> None:
    async def story(world: BrainWorld) -> None:
        fleet = Upgraded(world)
        with pytest.raises(UsageError, match="there is eu"):
            await fleet.rollouts.start(
                NEW, "mars", "ann", at_once=1, soak_s=None, halting=True, required_at=0.0
            )
        with pytest.raises(UsageError, match="at-once"):
            await fleet.start(at_once=0)
        with pytest.raises(UsageError, match="hq upgrade status"):
            await fleet.rollouts.order(Word.HALT, "ann")
        with pytest.raises(UsageError, match="hq servers"):
            await fleet.rollouts.defer("nobody", 9.0, "ann")

    run(story)


# --- What nodes are told -------------------------------------------------------------------------
STAPLE = Staple(Signed(b"\x1e", b"k" * 32, b"s" * 64), b"proof")
ROLLOUT_ROW = RolloutRow("r", NEW, b"", "eu", RolloutState.CANARY, "ann", 0.0)


def told(scenario: Scenario) -> None:
    run_book(scenario)


def test_a_node_is_told_of_its_release_and_nobody_else_is_woken() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        row = ReleaseRow(NEW, "0.2.0", "0.2.0", pack(STAPLE), 0.0, "ann")
        await store.txn([], [Put(RELEASES + NEW.hex(), pack(row)), Put(ROLLOUT, pack(ROLLOUT_ROW))])
        while not book._releases:  # noqa: ASYNC110
            await asyncio.sleep(0)
        versions = [book.version(node) for node in NODES]
        assert book.desired(NODES[2]).release is None
        assert book.desired(NODES[2]).wire == WIRE
        place = PlaceRow("relay-eu-002", NEW, Phase.ORDERED)
        reply = await store.txn([], [Put(place_key("relay-eu-002"), pack(place))])
        await seen(store, book, reply.revision)
        assert book.desired(NODES[2]).release == STAPLE
        assert [book.version(node) for node in NODES[1:]] == [
            versions[1], reply.revision, *versions[3:],
        ]  # fmt: skip
        kept = msgspec.structs.replace(place, phase=Phase.KEPT)
        later = await store.txn([], [Put(place_key("relay-eu-002"), pack(kept))])
        await seen(store, book, later.revision)
        assert book.version(NODES[2]) == reply.revision, "its phase is nothing to the node"
        done = msgspec.structs.replace(ROLLOUT_ROW, state=RolloutState.DONE)
        await store.txn([], [Put(ROLLOUT, pack(done))])
        while book.desired(NODES[5]).release is None:  # noqa: ASYNC110
            await asyncio.sleep(0)

    told(scenario)


def test_a_release_that_has_not_come_is_not_taken_for_none() -> None:
    async def scenario(store: ControlStore, book: DesiredBook) -> None:
        place = PlaceRow("relay-eu-002", NEW, Phase.ORDERED)
        reply = await store.txn([], [Put(place_key("relay-eu-002"), pack(place))])
        await seen(store, book, reply.revision)
        with pytest.raises(OperationFault, match="not known here yet"):
            book.desired(NODES[2])

    told(scenario)


# --- Through the sockets -------------------------------------------------------------------------
def signed(tmp_path: Path, archive: bytes, **changes: Any) -> Staple:
    make_release_key(make_root(), tmp_path / "key", SystemClock().wall(), SystemEntropy())
    key, proof, network = read_release_key(tmp_path / "key")
    release = Release(
        network, "0.2.0", "0.2.0", 1, WIRE, 2, hash_bytes(archive), len(archive), Knobs(), 1
    )
    return sign_release(key, proof, msgspec.structs.replace(release, **changes))


def test_a_release_is_added_and_fetched_by_members_only(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        archive = b"an archive"
        staple = signed(tmp_path, archive)
        with pytest.raises(OperationFault, match="hq release add"):
            await operator.call("POST", "/releases", ReleaseOrder(staple), Done)
        put_archive(hq.home.directory, staple, archive + b"!")
        with pytest.raises(UsageError, match="not the one that was signed"):
            await operator.call("POST", "/releases", ReleaseOrder(staple), Done)
        put_archive(hq.home.directory, staple, archive)
        for _ in range(2):
            await operator.call("POST", "/releases", ReleaseOrder(staple), Done)
        found: ReleaseItems = await operator.call("GET", "/releases", None, ReleaseItems)
        assert [item.name for item in found.items] == ["0.2.0"], "twice is once"
        other = signed(tmp_path, archive, schema=3)
        put_archive(hq.home.directory, other, archive)
        with pytest.raises(UsageError, match="another release is called"):
            await operator.call("POST", "/releases", ReleaseOrder(other), Done)

        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        await node.join(await operator.token())
        client = node.client()
        path = f"/v1/releases/{release_id(staple).hex()}"
        assert await client.fetch(path) == archive
        with pytest.raises(PeerFault, match="no such release"):
            await client.fetch(f"/v1/releases/{release_id(other).hex()}")
        (hq.home.directory / "releases" / f"{release_id(staple).hex()}.zip").unlink()
        with pytest.raises(OperationFault, match="no such archive"):
            await client.fetch(path)
        await client.close()

        view: UpgradeView = await operator.call("GET", "/upgrade", None, UpgradeView)
        assert (view.state, [place.runs for place in view.places]) == ("none", [""])
        with pytest.raises(UsageError, match="hq release list"):
            await operator.call("POST", "/upgrade", UpgradeOrder("9.9"), Done)

    run_hq(scenario, tmp_path / "hq")


def test_an_upgrade_needs_a_second_operator_and_to_halt_one_does_not(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        people = People(hq, operator)
        await people.add("ann", "operator")
        order = {"release": "installed"}
        assert (await people.call("POST", "/upgrade", order, by="ann"))[0] == 202
        status, said = await people.call("POST", "/upgrade/halt", {}, by="ann")
        assert (status, said["message"][:14]) == (422, "the rollout is")

    run_hq(scenario, tmp_path / "hq")


def test_a_release_of_nobody_is_not_added(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        staple = signed(tmp_path, b"x")
        forged = msgspec.structs.replace(staple, proof=hq.parts.authority.intermediate)
        put_archive(hq.home.directory, forged, b"x")
        with pytest.raises(UsageError, match="no release key"):
            await operator.call("POST", "/releases", ReleaseOrder(forged), Done)

    run_hq(scenario, tmp_path / "hq")


def test_a_node_of_another_wire_is_told_what_it_knows(tmp_path: Path) -> None:
    async def scenario(hq: Headquarters, operator: Operator) -> None:
        node = Node(hq.parts.api_addresses, hq.parts.authority.roots)
        await node.join(await operator.token())
        client = node.client()

        async def keys(query: str) -> set[str]:
            data = await client.fetch(f"/v1/desired?after=0{query}")
            return set(unpack_json(dict[str, msgspec.Raw], data, bytes_max=1 << 20))

        newest = await keys(f"&wire={WIRE + 5}")
        assert await keys("") == newest - {"wire", "release", "release_required_at"}
        with pytest.raises(PeerFault, match="in digits"):
            await keys("&wire=two")
        await client.close()

    run_hq(scenario, tmp_path / "hq")
