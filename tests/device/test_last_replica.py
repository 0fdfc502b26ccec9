"""Everything lost but one replica, and that one not even at the address the locator knows."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tests.device.test_two_devices import fill, sync
from tests.device.world import Fleet, tree
from tests.fabric.test_roster import names_of, replace
from tests.fabric.world import FAST, ids_on, locator_of
from tests.relay.harness import Pool, until

from holdfast.device.setup import Setup, set_up
from holdfast.device.sharing import place, share
from holdfast.logic.fleet.model import Role
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock


def test_a_refilled_replacement_alone_restores_everything(tmp_path: Path) -> None:
    """Seed 004 §4.3: a replacement refills from its peers; §2.3: the name leads to it."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            locator = locator_of(pool, record)
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, words = await fleet.device("ada")
                top = tmp_path / "top"
                top.mkdir()
                fill(top)
                group = await share(ada, top, "tree")
                await sync(ada)
                assert await ada.reach(Stage.REPLICATED, 60.0)
                era = ada.groups[group.id].era
                await until(lambda: ada.state.store.outbox.bytes_held == 0)
                blobs = await ids_on(pool.servers["relay-eu-001"], era)
                await fleet.shut(ada)
                shutil.rmtree(tmp_path / "ada")
                fresh = await replace(pool, "replica-eu-002")
                pool.assign(record.slot, names_of(record))
                while await ids_on(fresh, era) != blobs:
                    await pool.clock.sleep_real(0.1)
                for server in pool.servers.values():
                    if server is not fresh:
                        await server.stop()
                fleet.dns.point(fresh)
                fleet.hq.gone = True
                setup = Setup(tmp_path / "cleo", "cleo", locator, words)
                cleo = await set_up(setup, fleet.world())
                fleet.adopt(cleo)
                await place(cleo, cleo.key_named("tree"), tmp_path / "restored")
                for folder in cleo.folders.values():
                    done = await folder.sync(everywhere=True)
                    assert not done.problems
                    assert not done.missing
                assert tree(tmp_path / "restored") == tree(top)
                assert not await cleo.reach(Stage.STORED, 0.5), "one replica is not two relays"
                assert fresh.role is Role.REPLICA

    asyncio.run(main())
