"""How a device begins, is cut short, and begins again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.device.world import Fleet, tree
from tests.fabric.test_roster import names_of, replace
from tests.fabric.world import FAST, locator_of
from tests.relay.harness import Pool, until

from holdfast.device.setup import Setup, check_device_name, draw_phrase, folder_directory, set_up
from holdfast.device.sharing import share
from holdfast.device.state import DeviceState
from holdfast.device.view import DeviceView
from holdfast.errors import OperationFault, UsageError
from holdfast.fabric.database import Database
from holdfast.logic.pool.fanout import Stage
from holdfast.logic.trust.adoption import Verdict
from holdfast.rim.clock import ManualClock, SystemClock
from holdfast.rim.entropy import SeededEntropy, SystemEntropy


def test_a_network_locator_gets_a_slot_and_roots_from_hq(tmp_path: Path) -> None:
    """D5: pins and an HQ address are enough; what HQ says is checked against them."""

    async def main() -> None:
        async with Pool(tmp_path / "pool") as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                bare = msgspec.structs.replace(
                    locator_of(pool, record), roots=(), slot=b"", relays=(), replicas=()
                )
                phrase = draw_phrase(SystemEntropy())
                setup = Setup(tmp_path / "ada", "ada", bare, phrase, is_new=True, region="eu")
                ada = await set_up(setup, fleet.world())
                fleet.adopt(ada)
                assert fleet.hq.asked == ["roots", "new slot"]
                assert ada.state.home_slot == record.slot
                assert ada.keyring.slot.current_locator() == locator_of(pool, record)
                assert await ada.reach(Stage.STORED, 20.0)

    asyncio.run(main())


def test_a_setup_that_was_cut_short_is_begun_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                for server in pool.servers.values():
                    await server.stop()
                phrase = draw_phrase(SystemEntropy())
                setup = Setup(tmp_path / "ada", "ada", locator_of(pool, record), phrase, True)
                with pytest.raises(OperationFault, match="ask for a newer locator"):
                    await set_up(setup, fleet.world())
                key = (tmp_path / "ada" / "device.key").read_bytes()
                for server in pool.servers.values():
                    await server.start()
                ada = await set_up(setup, fleet.world())
                fleet.adopt(ada)
                assert ada.state.key.seed == key, "the same device, not another one"
                assert [device.name for device in ada.keyring_log.devices()] == ["ada"]

    asyncio.run(main())


def test_a_slot_is_followed_anew_from_a_trusted_locator(tmp_path: Path) -> None:
    """D4: after a long time away too much has changed at once; somebody trusted says where."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(FAST)) as pool:
            record = await pool.seat()
            async with Fleet(pool, record, tmp_path) as fleet:
                ada, _ = await fleet.device("ada")
                top = tmp_path / "top"
                top.mkdir()
                (top / "file").write_text("one")
                await share(ada, top, "notes")
                await fleet.shut(ada)
                for name in ("relay-eu-001", "relay-eu-002", "replica-eu-003"):
                    await replace(pool, name)
                newer = pool.assign(record.slot, names_of(record))
                ada = await fleet.reopen("ada")
                roster = ada.keyring.slot.roster
                await until(lambda: roster.refused is Verdict.TOO_DIFFERENT)
                for folder in ada.folders.values():
                    await folder.sync()
                    assert folder.figures().record_refused == "too different"
                stranger = msgspec.structs.replace(locator_of(pool, newer), slot=b"x" * 16)
                with pytest.raises(UsageError, match="nothing on the slot"):
                    ada.state.follow_anew(stranger)
                await fleet.shut(ada)
                state = DeviceState.open(tmp_path / "ada", pool.clock)
                state.follow_anew(locator_of(pool, newer))
                state.close()
                ada = await fleet.reopen("ada")
                assert ada.keyring.slot.roster.version == newer.version
                assert await ada.reach(Stage.REPLICATED, 30.0)
                assert tree(top)

    asyncio.run(main())


def test_the_directory_is_private_and_held_by_one(tmp_path: Path) -> None:
    clock, entropy = ManualClock(), SeededEntropy(1)
    state = DeviceState.create(tmp_path / "ada", clock, entropy)
    state.set("name", b"ada")
    for path in (tmp_path / "ada").rglob("*"):
        if path.name != "lock":  # empty
            assert path.stat().st_mode & 0o077 == 0, path
    with pytest.raises(UsageError, match="already runs"):
        DeviceState.open(tmp_path / "ada", clock)
    state.close()
    with pytest.raises(UsageError, match="holds a device already"):
        DeviceState.create(tmp_path / "ada", clock, entropy)
    with pytest.raises(UsageError, match="device init"):
        DeviceState.open(tmp_path / "nobody", clock)
    with pytest.raises(UsageError, match="device init"):
        DeviceView(tmp_path / "nobody")
    (tmp_path / "ada" / "device.key").write_bytes(b"short")
    with pytest.raises(OperationFault, match="restore this device"):
        DeviceState.open(tmp_path / "ada", clock)


def test_a_read_only_database_beside_an_open_one(tmp_path: Path) -> None:
    state = DeviceState.create(tmp_path / "ada", ManualClock(), SeededEntropy(1))
    state.set("name", b"ada")
    reader = Database(tmp_path / "ada" / "device.db", "", read_only=True)
    assert reader.one("select value from settings where name = 'name'") == (b"ada",)
    reader.close()
    state.close()


@pytest.mark.parametrize("name", ["", "x" * 65, "two\nlines", "\udc80"])
def test_names_of_devices(name: str) -> None:
    with pytest.raises(UsageError, match="choose another"):
        check_device_name(name)
    check_device_name("Ada's phone, \u6d77")


def test_directories_of_restored_folders(tmp_path: Path) -> None:
    """A group's name is somebody else's text: it stays one component below the directory."""
    taken: set[str] = set()
    group = bytes(range(32))
    names = ["notes", "notes", "../../etc", "a/b", "..", "", "tab\there", "x" * 300]
    places = [folder_directory(tmp_path, name, taken, group) for name in names]
    assert all(place.parent == tmp_path for place in places)
    assert all(place.name not in ("", ".", "..") for place in places)
    assert len(set(places)) == len(places)
