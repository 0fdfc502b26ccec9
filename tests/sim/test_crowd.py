"""A crowd of live clients, and the witness that reads disks: what is acknowledged is there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.fabric.world import locator_of, network_of
from tests.relay.harness import Pool

from holdfast.sim.crowd import Crowd, CrowdClient
from holdfast.sim.witness import Held, held_on


def test_acknowledged_blobs_lie_on_two_relays_whatever_dies(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            network, locator = network_of(pool), locator_of(pool, record)
            clients = [
                CrowdClient(network, locator, tmp_path / f"client-{number}") for number in range(4)
            ]
            crowd = Crowd(clients)
            await crowd.start()
            assert crowd.live == 4
            await pool.servers["relay-eu-002"].stop()
            await asyncio.gather(*(client.acknowledged(3) for client in clients))
            await crowd.stop()
            assert crowd.live == 0
            disks = [
                held_on(server.home) for name, server in pool.servers.items() if "relay" in name
            ]
            for held in crowd.acked:
                assert sum(held in disk for disk in disks) >= 2

    asyncio.run(main())


def test_the_witness_believes_only_intact_records(tmp_path: Path) -> None:
    async def main() -> set[Held]:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            client = CrowdClient(network_of(pool), locator_of(pool, record), tmp_path / "client")
            crowd = Crowd([client])
            await crowd.start()
            await client.acknowledged(2)
            await crowd.stop()
            return crowd.acked

    acked = asyncio.run(main())
    disk = tmp_path / "pool" / "relay-eu-001"
    before = held_on(disk)
    assert before & acked
    (segment,) = (path for path in disk.glob("**/*.seg") if "canary" not in path.name)
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    assert len(held_on(disk)) == len(before) - 1
