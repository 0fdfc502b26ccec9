"""The conformance suite over every control store, and what is SQLite's own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.rim.control_conformance import CASES, TIMED, ByHand, Opener, Turned, run_case, take

from holdfast.errors import OperationFault
from holdfast.rim.clock import Clock, SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Compacted, ControlStore, Delete, Put


async def make_sqlite(directory: Path, clock: Clock) -> ControlStore:
    return await SqliteStore.open(directory / "control.db", clock)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__.removeprefix("case_"))
def test_conformance(case: Callable[[Opener], Awaitable[None]], tmp_path: Path) -> None:
    run_case(case, lambda clock: make_sqlite(tmp_path, clock))


@pytest.mark.parametrize("case", TIMED, ids=lambda case: case.__name__.removeprefix("timed_"))
def test_conformance_in_time(
    case: Callable[[Opener, Turned], Awaitable[None]], tmp_path: Path
) -> None:
    turn = ByHand(9_999.0)
    run_case(lambda opener: case(opener, turn), lambda clock: make_sqlite(tmp_path, clock))


COUNTER = """
import asyncio, sys
from pathlib import Path
from holdfast.rim.clock import SystemClock
from holdfast.rim.control.sqlite import SqliteStore
from holdfast.rim.control.store import Put, unchanged

async def main(path, steps):
    store = await SqliteStore.open(Path(path), SystemClock())
    done = 0
    while done < steps:
        kv = await store.get("/counter")
        value = str(int(kv.value) + 1 if kv else 1).encode()
        reply = await store.txn([unchanged("/counter", kv)], [Put("/counter", value)])
        done += reply.succeeded
    await store.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_processes_share_one_file(tmp_path: Path) -> None:
    """Two processes that have not even created the file count together; a third one watches."""
    path = tmp_path / "control.db"

    async def main() -> None:
        workers = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", COUNTER, str(path), "40")
            for _ in range(2)
        ]
        store = await SqliteStore.open(path, SystemClock())
        batches = await take(store.watch("/counter", 1), 80)
        assert [int(batch.events[0].kv.value) for batch in batches] == list(range(1, 81))
        assert [await worker.wait() for worker in workers] == [0, 0]
        await store.close()

    asyncio.run(main())


def test_a_killed_process_loses_nothing_it_was_told(tmp_path: Path) -> None:
    """SIGKILL between commits: every acknowledged step is there, none is half there."""
    path = tmp_path / "control.db"
    script = COUNTER.replace("done += reply.succeeded", "print(int(value), flush=True)")
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(path), "1"], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    told = [int(worker.stdout.readline()) for _ in range(50)]
    worker.kill()
    worker.wait()
    rest = [int(line) for line in worker.stdout if line.endswith("\n") and line.strip()]
    worker.stdout.close()

    async def main() -> None:
        store = await SqliteStore.open(path, SystemClock())
        kv = await store.get("/counter")
        assert kv is not None
        assert int(kv.value) == kv.version == kv.mod_revision >= max(told + rest)
        await store.close()

    asyncio.run(main())


def test_history_is_bounded_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "control.db"

    async def main() -> None:
        store = await SqliteStore.open(path, SystemClock(), history_revisions=50)
        for index in range(120):
            await store.txn([], [Put("/a", str(index).encode()), Put(f"/k/{index}", b"")])
        with pytest.raises(Compacted) as caught:
            await anext(store.watch("/a", 1))
        newer = await take(store.watch("/a", caught.value.revision + 1), 50)
        assert newer[-1].revision == 120
        assert len((await store.range("/k/")).items) == 120
        await store.close()
        with pytest.raises(OperationFault):
            await store.get("/a")

    asyncio.run(main())
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_not_a_database_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    path.write_bytes(b"this is no database, whatever it is" * 100)

    async def main() -> None:
        with pytest.raises(OperationFault, match="cannot open"):
            await SqliteStore.open(path, SystemClock())
        with pytest.raises(OperationFault, match="cannot open"):
            await SqliteStore.open(tmp_path / "none" / "control.db", SystemClock())

    asyncio.run(main())


def test_a_full_disk_fails_the_write_and_keeps_the_store(tmp_path: Path) -> None:
    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "control.db", SystemClock())
        await store.txn([], [Put("/a", b"1")])
        store._database._db.execute("PRAGMA max_page_count = 20")
        with pytest.raises(OperationFault):
            await store.txn([], [Put("/b", bytes(500_000)), Put("/a", b"2")])
        kv = await store.get("/a")
        assert kv is not None
        assert (kv.value, await store.revision()) == (b"1", 1)
        await store.close()

    asyncio.run(main())


KEYS = st.sampled_from(["/m/a", "/m/b", "/m/c", "/n/a"])
STEPS = st.lists(
    st.dictionaries(KEYS, st.one_of(st.none(), st.binary(max_size=3)), min_size=1, max_size=4),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_a_watch_rebuilds_the_range(steps: list[dict[str, bytes | None]]) -> None:
    """Folding every event from revision 1 gives exactly what `range` says now."""

    async def main() -> None:
        store = await SqliteStore.open(None, SystemClock())
        model: dict[str, bytes] = {}
        for step in steps:
            await store.txn([], [Delete(k) if v is None else Put(k, v) for k, v in step.items()])
            for key, value in step.items():
                if value is None:
                    model.pop(key, None)
                else:
                    model[key] = value
        folded: dict[str, bytes] = {}
        await store.txn([], [Put("/m/end", b"")])
        async for batch in store.watch("/m/", 1):
            for event in batch.events:
                folded[event.kv.key] = event.kv.value
                if event.deleted:
                    del folded[event.kv.key]
            if "/m/end" in folded:
                break
        reply = await store.range("/m/")
        assert {kv.key: kv.value for kv in reply.items} == folded
        del folded["/m/end"]
        assert folded == {key: value for key, value in model.items() if key.startswith("/m/")}
        await store.close()

    asyncio.run(main())
