"""Headquarters' snapshots: sealed to people, whole, and one life later (seed 004 §12.2; D3)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from holdfast.crypto.sealedfile import make_identity, recipient_of, seal_for
from holdfast.errors import OperationFault, UsageError
from holdfast.hq.config import ContinuityConfig, HqConfig, save_config
from holdfast.hq.keeper import Keeper
from holdfast.hq.leader import LEADER, TERM
from holdfast.hq.restore import check_bare, load_store, write_files
from holdfast.hq.restored import RESTORED, last_restore
from holdfast.hq.shelf import DirectoryShelf, newest_file
from holdfast.hq.snapshot import seal, take, unseal
from holdfast.limits.continuity import (
    REVISIONS_PER_RESTORE,
    SNAPSHOTS_KEPT,
    TERMS_PER_RESTORE,
)
from holdfast.rim.clock import ManualClock
from holdfast.rim.cloud.account import Account
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Put
from holdfast.wire.codec import pack
from holdfast.wire.snapshot import Snapshot, SnapshotFile, key_line, parse_key_line

NETWORK = b"n" * 16
ME, OTHER = make_identity(), make_identity()
PROVIDER = Account("alder", "127.0.0.1:1", "../alder/key", ("eu",))
CONFIG = HqConfig(
    "hq.example",
    providers=(PROVIDER,),
    continuity=ContinuityConfig((recipient_of(ME),), ("kept",)),
)


def home_of(tmp_path: Path) -> Path:
    """A directory like a headquarters', with a provider's key outside of it."""
    home = tmp_path / "hq"
    (home / "intermediate").mkdir(parents=True)
    (tmp_path / "alder").mkdir()
    (tmp_path / "alder" / "key").write_bytes(b"secret of alder")
    (home / "identity.key").write_bytes(b"i" * 32)
    (home / "roots.pem").write_bytes(b"roots")
    (home / "intermediate" / "7.key").write_bytes(b"intermediate key")
    save_config(home, CONFIG)
    return home


def make(tmp_path: Path, *, rows: int = 300) -> tuple[Snapshot, Path]:
    """A snapshot of a store with `rows` rows, and where it was taken."""
    home = home_of(tmp_path)

    async def main() -> Snapshot:
        store = await SqliteStore.open(home / "control.db", ManualClock())
        for index in range(rows):
            await store.txn([], [Put(f"/fleet/x/{index}", bytes([index % 256]) * 5_000)])
        await store.txn([], [Put(TERM, b"7"), Put(LEADER, b"me")])
        snapshot = await take(store, home, CONFIG, NETWORK, 1_000.0)
        await store.close()
        return snapshot

    return asyncio.run(main()), home


def test_a_snapshot_opens_for_its_recipients_and_for_nobody_else(tmp_path: Path) -> None:
    snapshot, _ = make(tmp_path, rows=3)
    sealed = seal(snapshot, (recipient_of(OTHER), recipient_of(ME)))
    assert b"secret of alder" not in sealed
    assert unseal(sealed, ME) == unseal(sealed, OTHER) == snapshot
    with pytest.raises(UsageError, match="does not open"):
        unseal(sealed, make_identity())
    with pytest.raises(UsageError, match="age1"):
        seal(snapshot, ("age1nonsense",))
    with pytest.raises(UsageError, match="name somebody"):
        seal(snapshot, ())


@pytest.mark.parametrize("spoil", [lambda data: data[:-3], lambda data: b"", lambda data: b"x"])
def test_what_opens_and_is_no_snapshot_is_told_as_such(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    sealed = seal_for(spoil(pack(make(tmp_path, rows=1)[0])), [recipient_of(ME)])
    with pytest.raises(UsageError, match="no snapshot"):
        unseal(sealed, ME)


def test_one_life_later_everything_is_there_and_outranks_the_past(tmp_path: Path) -> None:
    """D3: the epoch grows, D25: terms begin a new run; rows and files are what they were."""
    snapshot, home = make(tmp_path)
    new = tmp_path / "new"
    check_bare(new)
    write_files(snapshot, new)
    clock = ManualClock()

    async def main() -> None:
        assert (await load_store(snapshot, new, clock)).epoch == 1
        store = await SqliteStore.open(new / "control.db", clock)
        found = {kv.key: kv.value for kv in (await store.range("/")).items}
        assert int(found.pop(TERM)) == TERMS_PER_RESTORE
        assert found.pop(RESTORED)
        assert found == {row.key: row.value for row in snapshot.rows if row.key != TERM}
        assert LEADER not in found
        assert len(found) == 300
        assert await store.revision() > snapshot.revision + REVISIONS_PER_RESTORE
        again = await take(store, new, CONFIG, NETWORK, 2_000.0)
        assert again.epoch == 1
        await store.close()

    asyncio.run(main())
    for name in ("identity.key", "roots.pem", "intermediate/7.key"):
        assert (new / name).read_bytes() == (home / name).read_bytes()
    config = msgspec.json.decode((new / "hq.json").read_bytes(), type=HqConfig)
    (provider,) = config.providers
    assert (new / provider.key_file).read_bytes() == b"secret of alder"
    assert (new / provider.key_file).stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="not empty"):
        check_bare(new)


def test_a_second_life_begins_a_third_run_of_terms(tmp_path: Path) -> None:
    snapshot, _ = make(tmp_path, rows=1)
    clock = ManualClock()

    async def life(number: int, of: Snapshot) -> Snapshot:
        home = tmp_path / f"life-{number}"
        write_files(of, home)
        await load_store(of, home, clock)
        store = await SqliteStore.open(home / "control.db", clock)
        term = await store.get(TERM)
        assert term is not None
        assert int(term.value) == number * TERMS_PER_RESTORE
        assert (await last_restore(store)).epoch == number
        found = await take(store, home, CONFIG, NETWORK, 0.0)
        await store.close()
        return found

    async def main() -> None:
        await life(2, await life(1, snapshot))

    asyncio.run(main())


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", ""])
def test_a_file_that_leads_out_of_the_directory_is_refused_before_any_is_written(
    tmp_path: Path, path: str
) -> None:
    good, bad = SnapshotFile("identity.key", b"k"), SnapshotFile(path, b"x")
    snapshot = Snapshot(1, NETWORK, "d", 0, 0, 0, (), (good, bad))
    with pytest.raises(UsageError, match="do not trust"):
        write_files(snapshot, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_directory_keeps_the_newest(tmp_path: Path) -> None:
    shelf = DirectoryShelf(tmp_path / "kept")

    async def main() -> None:
        for index in range(SNAPSHOTS_KEPT + 5):
            await shelf.put(f"snapshot {index}".encode(), 1_000 + index // 2, index)

    asyncio.run(main())
    assert len(shelf.files()) == SNAPSHOTS_KEPT
    assert newest_file(tmp_path / "kept") == newest_file(shelf.files()[-1])
    assert newest_file(tmp_path / "kept") == f"snapshot {SNAPSHOTS_KEPT + 4}".encode()
    with pytest.raises(UsageError, match="no snapshot"):
        newest_file(tmp_path)


class BrokenShelf:
    """A shelf that fails as long as it is told to."""

    name = "broken"

    def __init__(self) -> None:
        self.fails = True
        self.got: list[bytes] = []

    async def put(self, sealed: bytes, made_at: int, revision: int) -> None:
        if self.fails:
            raise OperationFault("no room")
        self.got.append(sealed)


def test_a_shelf_that_fails_holds_up_nothing_and_is_tried_again(tmp_path: Path) -> None:
    """Snapshots follow changes of the fleet, on every shelf by itself."""
    home = home_of(tmp_path)

    async def main() -> None:
        clock = ManualClock()
        store = await SqliteStore.open(home / "control.db", clock)
        shelf, broken = DirectoryShelf(tmp_path / "kept"), BrokenShelf()
        keeper = Keeper(store, home, CONFIG, NETWORK, clock, (broken, shelf))
        running = asyncio.create_task(keeper.run())

        async def until(ready: Callable[[], bool]) -> None:
            async with asyncio.timeout(10):
                while not ready():  # noqa: ASYNC110 - files tell nobody
                    await asyncio.sleep(0.01)

        await until(lambda: "broken" in keeper.kept and len(shelf.files()) > 0)
        assert keeper.kept["broken"].error == "no room"
        assert keeper.kept[shelf.name].at > 0
        await store.txn([], [Put("/fleet/x", b"1")])
        broken.fails = False
        await until(lambda: keeper.kept["broken"].revision == 1)
        assert keeper.kept["broken"].error == ""
        assert b"/fleet/x" in pack(unseal(broken.got[-1], ME))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.close()

    asyncio.run(main())


def test_the_key_line_is_a_line() -> None:
    assert parse_key_line(key_line(b"k" * 32)) == b"k" * 32
    assert key_line(b"k" * 32).startswith("hfsnap1")
