"""Live data from device to device: beside the pool, and when there is no pool (seed 003)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.device.world import Fleet, running, same
from tests.fabric.world import FAST
from tests.relay.harness import Pool, until

from holdfast.device.direct import BOOK, Direct
from holdfast.device.friends import keep
from holdfast.device.inviting import Inviter, join_group
from holdfast.device.membership import remove
from holdfast.device.peering.meeting import Waiting, guest, host
from holdfast.device.peering.pairing import Offer
from holdfast.device.peering.peers import announce
from holdfast.device.peering.standing import Standing
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.sharing import place, share
from holdfast.device.tend import tend
from holdfast.device.watch import Watch
from holdfast.errors import PeerFault
from holdfast.logic.peers.windows import Terms
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.wire.codec import pack
from holdfast.wire.peers import TOLD, Tagged

pytestmark = pytest.mark.system
TERMS = Terms(1.0, 0.5, 0.2, 500.0, 0.4, 0.05)
HERE = ("127.0.0.1",)


def standing_at(runtime: DeviceRuntime) -> Standing:
    return Standing(
        *(runtime.state.key, runtime.state.home / BOOK, runtime.clock, SystemEntropy()),
        terms=TERMS,
        hosts=lambda: HERE,
    )


async def befriend(ada: DeviceRuntime, ben: DeviceRuntime) -> None:
    there: asyncio.Future[Waiting] = asyncio.get_running_loop().create_future()
    hosting = asyncio.create_task(
        host(
            *(ada, Offer("ada")),
            listen=(HERE[0], 0),
            relay=False,
            on_waiting=there.set_result,
        )
    )
    waiting = await there
    await keep(ben, await guest(ben, Offer("ben"), waiting.code, waiting.addresses[0]))
    await keep(ada, await hosting)


@asynccontextmanager
async def watching(*runtimes: DeviceRuntime) -> AsyncIterator[list[Standing]]:
    ends = [standing_at(runtime) for runtime in runtimes]
    tasks = [
        asyncio.create_task(
            Watch(runtime, lambda folder, done: None, direct=Direct(runtime, end)).run()
        )
        for runtime, end in zip(runtimes, ends, strict=True)
    ]
    async with running(tasks):
        yield ends


async def shared(ada: DeviceRuntime, ben: DeviceRuntime, a: Path, b: Path) -> None:
    """Ada's folder `a` is Ben's folder `b`."""
    await share(ada, a, "notes")
    inviter = Inviter(ada)
    invite = inviter.invite(ada.key_named("notes"))
    joining = asyncio.create_task(join_group(ben, invite))
    while not joining.done():
        await inviter.answer()
        await asyncio.sleep(0.1)
    await place(ben, ben.key_named((await joining).name), b)


def test_friends_go_on_when_every_server_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, _ = await fleet.device("ada")
                ben, _ = await fleet.device("ben")
                a, b = tmp_path / "a", tmp_path / "b"
                a.mkdir()
                (a / "first").write_text("one")
                await befriend(ada, ben)
                await shared(ada, ben, a, b)
                async with watching(ada, ben) as (at_ada, at_ben):
                    await same(a, b)
                    await until(lambda: bool(at_ada.connected() and at_ben.connected()), 30.0)
                    for server in pool.servers.values():
                        await server.stop()
                    (a / "second").write_bytes(os.urandom(9_000_000))
                    await same(a, b)
                    (b / "third").write_text("three")
                    await same(a, b)
                async with watching(ada):
                    (a / "fourth").write_text("while ben was away")
                    await until(lambda: ada.state.store.outbox.bytes_held > 9_000_000)
                async with watching(ada, ben):
                    await same(a, b)
                    assert (b / "fourth").read_text() == "while ben was away"

    asyncio.run(main())


def test_who_is_not_in_the_group_gets_nothing_and_tells_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, _ = await fleet.device("ada")
                eve, _ = await fleet.device("eve")
                await befriend(ada, eve)
                a = tmp_path / "a"
                a.mkdir()
                (a / "file").write_text("not for eve")
                await share(ada, a, "notes")
                key = ada.key_named("notes")
                tag = ada.groups[key.id].era.tag
                async with watching(ada, eve) as (_, at_eve):
                    await until(lambda: bool(at_eve.connected()), 30.0)
                    (device,) = at_eve.connected()
                    for verb in ("have", "get", TOLD):
                        with pytest.raises(PeerFault):
                            await at_eve.call(device, verb, pack(Tagged(tag, (), ())))

    asyncio.run(main())


def test_a_removed_device_gets_nothing_more_though_its_person_stays(tmp_path: Path) -> None:
    """The pool refuses it by the era's key; a device must by the group's state."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, _ = await fleet.device("ada")
                ben, _ = await fleet.device("ben")
                a, b = tmp_path / "a", tmp_path / "b"
                a.mkdir()
                (a / "first").write_text("one")
                await befriend(ada, ben)
                await shared(ada, ben, a, b)
                group = ada.groups[ada.key_named("notes").id]
                while ben.state.key.public not in group.log.state.members:
                    await group.read(everywhere=True)
                direct = Direct(ada, standing_at(ada))
                assert direct._may(ben.state.key.public, group.era.tag)
                await remove(ada, group, {ben.state.key.public})
                assert ben.state.person in group.log.state.members.persons()
                assert not direct._may(ben.state.key.public, group.era.tag)

    asyncio.run(main())


def test_devices_of_one_person_find_each_other_without_pairing(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                laptop, words = await fleet.device("laptop")
                desk, _ = await fleet.device("desk", words)
                for device in (laptop, desk):
                    await announce(device, ("127.0.0.1:7",))
                    await device.reach(Stage.STORED, 20.0)
                for device in (laptop, desk):
                    await tend(device, everywhere=True)
                async with watching(laptop, desk) as ends:
                    await until(lambda: all(end.connected() for end in ends), 30.0)

    asyncio.run(main())
