"""A server that lies is named where a person looks, and its proof reaches HQ (D15)."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

import msgspec
import pytest

from holdfast.device.headquarters import RealHeadquarters
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import Setup, World, draw_phrase, set_up
from holdfast.device.sharing import share
from holdfast.device.witness import hand_in, show_receipts
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.entropy import Dice, SystemEntropy
from holdfast.rim.process import holdfast_command
from holdfast.sim.drills.liars import Liars
from holdfast.sim.drills.lies import Drops
from holdfast.wire.locator import Locator

pytestmark = pytest.mark.system


def holdfast(*words: str, status: int = 0) -> dict[str, object]:
    command = [*holdfast_command(*words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, (done.stdout, done.stderr)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


class Desk(RealHeadquarters):
    """HQ's desk where proofs are handed in."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.accusations: list[bytes] = []

    async def accuse(self, locator: Locator, evidence: bytes) -> bool:
        self.accusations.append(evidence)
        return True


def test_a_liar_is_named_in_the_status_and_its_proof_is_handed_on(tmp_path: Path) -> None:
    """One device, one folder, a relay that drops what it signed for."""
    clock, entropy = SystemClock(), SystemEntropy()
    home, top = tmp_path / "device", tmp_path / "top"
    top.mkdir()
    (top / "file").write_text("the content")

    async def main() -> list[bytes]:
        world = Liars(tmp_path / "world", clock, entropy)
        await world.start()
        hq = Desk(clock)
        locator = msgspec.structs.replace(world.world.locator(), hq=("127.0.0.1:9",))
        setup = Setup(home, "ada", locator, draw_phrase(entropy), True)
        runtime = await set_up(setup, World(clock, entropy, headquarters=hq))
        try:
            group = await share(runtime, top, "notes")
            await runtime.reach(Stage.STORED)
            door = world.doors["relay-eu-002"]
            tag = runtime.groups[group.id].era.tag
            door.liars[tag] = Drops(door.desk, world.world.slot, tag, Dice(1))
            await sync(runtime, group.id)
            await hand_in(runtime)
            return hq.accusations
        finally:
            await runtime.close()
            runtime.state.close()
            await world.stop()

    async def sync(runtime: DeviceRuntime, group: bytes) -> None:
        folder = runtime.folders[group]
        await folder.sync()
        await runtime.reach(Stage.REPLICATED, 5.0)
        assert await show_receipts(runtime) > 0
        await runtime.reach(Stage.STORED)
        await folder.group.audit()
        runtime.state.keep_figures(group, msgspec.json.encode(folder.figures()))

    handed = asyncio.run(main())
    where = f"--dir={home}"
    (folder,) = holdfast("folder", "status", where)["folders"]  # type: ignore[misc]
    (said, *_) = folder["liars"]
    assert said.startswith("relay-eu-002 denies what it signed for")
    assert holdfast("device", "status", where)["liars"] == folder["liars"]
    found = holdfast("device", "proofs", where, f"--out={tmp_path}")["findings"]
    (finding, *_) = found  # type: ignore[misc]
    assert (finding["name"], finding["lie"]) == ("relay-eu-002", "denies")
    file = tmp_path / f"{finding['proof'][:16]}.proof"
    verdict = holdfast("hq", "evidence", "verify", str(file))
    assert (verdict["ok"], verdict["kind"], verdict["name"]) == (True, "denial", "relay-eu-002")
    assert file.read_bytes() in handed
