"""Copies: put on two disks before anything counts as safe, levelled by reconciling, counted.

Two vaults compare one sum for a tag; where it differs, 256 sums, then the ids of buckets that
differ. What one lacks it fetches, what the other lacks it is sent. Nothing is ever deleted by
levelling.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from holdfast.device.vault.holding import Holder
from holdfast.device.vault.store import Kept, VaultStore
from holdfast.errors import HoldfastError, OperationFault
from holdfast.limits.people import COPIES_MIN, VAULT_ANSWER_BYTES_MAX, VAULT_ASK_MAX


class Levelled(msgspec.Struct):
    """What two vaults gave each other."""

    fetched: int = 0
    sent: int = 0
    fetched_bytes: int = 0


async def put_safely(
    store: VaultStore, holders: Sequence[Holder], tag: bytes, blob_class: int, body: bytes
) -> int:
    """Keep a blob here and with the first holders that answer; on how many disks it is.

    Raises OperationFault when that is fewer than two: it is kept here and levelled later, but
    whoever wrote it must not call it safe.
    """
    await asyncio.to_thread(store.put, tag, blob_class, [body])
    copies = 1
    for holder in holders:
        try:
            await holder.put(blob_class, (body,))
            copies += 1
        except HoldfastError:
            continue
    if copies < COPIES_MIN:
        raise OperationFault("this is on one disk only; it is copied when another device answers")
    return copies


async def level(store: VaultStore, holder: Holder, tag: bytes) -> Levelled:
    """Make this vault and another one level for one tag. Raises OperationFault, PeerFault,
    UsageError."""
    done = Levelled()
    if (await holder.sum()).total == (await asyncio.to_thread(store.sum, tag)).total:
        return done
    mine = await asyncio.to_thread(store.buckets, tag)
    theirs = await holder.buckets()
    for bucket in sorted(mine.keys() | theirs.keys()):
        if mine.get(bucket) == theirs.get(bucket):
            continue
        here = {item.blob: item for item in await asyncio.to_thread(store.items, tag, bucket)}
        there = {item.blob: item for item in await holder.items(bucket)}
        await _fetch(store, holder, tag, [there[b] for b in there.keys() - here.keys()], done)
        await _send(store, holder, [here[b] for b in here.keys() - there.keys()], done)
    return done


async def _fetch(
    store: VaultStore, holder: Holder, tag: bytes, items: Sequence[Kept], done: Levelled
) -> None:
    classes = {item.blob: item.blob_class for item in items}
    left = sorted(classes)
    while left:
        found = await holder.get(tuple(left[:VAULT_ASK_MAX]))
        if not found:
            return
        for blob, body in found.items():
            await asyncio.to_thread(store.put, tag, classes[blob], [body])
            done.fetched += 1
            done.fetched_bytes += len(body)
        left = [blob for blob in left if blob not in found]


async def _send(store: VaultStore, holder: Holder, items: Sequence[Kept], done: Levelled) -> None:
    for item in items:
        body = await asyncio.to_thread(store.get, item.blob)
        if body is not None:
            assert len(body) <= VAULT_ANSWER_BYTES_MAX
            await holder.put(item.blob_class, (body,))
            done.sent += 1
