"""What the tests of the blob store share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from holdfast.crypto.blob import HEADER
from holdfast.crypto.keys import SigningKey
from holdfast.crypto.pure import hash_bytes
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.store import DiskStore, Files, Incoming, StorePolicy
from holdfast.rim.store.index import _COLUMNS, Row
from holdfast.wire.pool import BlobClass, PushReply

IDENTITY = SigningKey(b"n" * 32)
SLOT = b"s" * 16
TAG = b"t" * 32
DAY = 20_000
SMALL_DISK = StorePolicy(reserve_bytes=0)


def blob(text: str, size: int = 200, born: int = DAY) -> Incoming:
    """A blob with a proper header and a body that depends on `text` alone."""
    body = (HEADER.pack(1, 1, born, hash_bytes(text.encode()))).ljust(size, b"\x00")
    return Incoming(hash_bytes(body), born, body)


def random_blob(size: int, born: int = DAY) -> Incoming:
    """A blob of random bytes."""
    body = HEADER.pack(1, 1, born, os.urandom(32)) + os.urandom(size - HEADER.size)
    return Incoming(hash_bytes(body), born, body)


async def open_store(
    path: Path, policy: StorePolicy | None = None, files: Files | None = None
) -> DiskStore:
    """The store under `path`."""
    return await DiskStore.open(
        path,
        identity=IDENTITY,
        clock=SystemClock(),
        entropy=SystemEntropy(),
        policy=policy or SMALL_DISK,
        files=files,
    )


async def put(
    store: DiskStore,
    blobs: Sequence[Incoming],
    *,
    tag: bytes = TAG,
    slot: bytes = SLOT,
    blob_class: BlobClass = BlobClass.LOG,
) -> PushReply:
    """Push to the usual tag."""
    return await store.push(slot, tag, blob_class, blobs)


def run(
    path: Path,
    work: Callable[[DiskStore], Awaitable[Any]],
    policy: StorePolicy | None = None,
    files: Files | None = None,
) -> Any:
    """Open the store, do `work` with it, close it."""

    async def main() -> Any:
        store = await open_store(path, policy, files)
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def picture(store: DiskStore) -> object:
    """Everything a store says of itself that must survive a restart."""
    figures = store.figures()
    slots = {stream.slot for stream in store._state.streams.values()}
    return (
        figures.groups,
        figures.blobs,
        figures.stored_bytes,
        {
            slot: (store.days(slot), [store.buckets(slot, d.born) for d in store.days(slot)])
            for slot in slots
        },
        {key: (s.head, s.count, s.size, s.first_at) for key, s in store._state.streams.items()},
        sorted(row._replace(stream=0, segment=0) for row in every_row(store)),
        store.incarnation,
    )


def delete_index(path: Path) -> None:
    """Throw the index away, as an operator might."""
    for file in path.glob("index.sqlite*"):
        file.unlink()


def segment_files(path: Path) -> list[Path]:
    """Segment files of born days."""
    return sorted((path / "segments").glob("0*.seg"))


def every_row(store: DiskStore) -> list[Row]:
    """All rows of the index, in its file and in memory."""
    index = store._index
    rows: Any = index._index._write.execute(f"SELECT {_COLUMNS} FROM blobs")
    return [*(Row(*row) for row in rows), *index._late.rows.values()]
