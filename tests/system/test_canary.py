"""Servers and HQ learn nothing: planted words are in none of their files, logs or memory.

The devices run in this process, so the processes of the network are exactly the suspects. The
control seals nothing: the same words must then be found, or the search is blind.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast.fabric.slot as slot_module
from holdfast.cli.local import LocalNetwork
from holdfast.crypto.blob import HEADER, SUITE_CHACHA20_POLY1305, VERSION
from holdfast.crypto.era import Era
from holdfast.device.runtime import DeviceRuntime
from holdfast.device.setup import Setup, World, draw_phrase, set_up
from holdfast.device.sharing import share
from holdfast.limits import BLOB_BUCKETS
from holdfast.logic.pool.fanout import Stage
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SystemEntropy
from holdfast.rim.process import descendants
from holdfast.wire.pool import BlobClass

pytestmark = pytest.mark.system
SETTLE_S = 120.0
LOOKS_AGAIN = 5
"""A process may have written over a freed buffer by the time the control looks at it."""


class Words:
    """What must not be found: random, so that a hit is a leak and not a coincidence."""

    def __init__(self) -> None:
        self.content = os.urandom(48)
        self.file = f"file-{os.urandom(12).hex()}"
        self.folder = f"folder-{os.urandom(12).hex()}"
        self.device = f"device-{os.urandom(12).hex()}"

    def all(self) -> dict[str, bytes]:
        return {
            "content": self.content,
            "file name": self.file.encode(),
            "folder name": self.folder.encode(),
            "device name": self.device.encode(),
        }


async def _live(network: LocalNetwork, home: Path, words: Words) -> DeviceRuntime:
    """A device shares a folder that holds the words, until replicas have it."""
    tree = home / words.folder
    tree.mkdir(parents=True)
    (tree / words.file).write_bytes(words.content)
    clock, entropy = SystemClock(), SystemEntropy()
    setup = Setup(
        home / "device", words.device, network.locator(), draw_phrase(entropy), True, "eu"
    )
    runtime = await set_up(setup, World(clock, entropy))
    await share(runtime, tree, words.folder)
    await _synced(runtime)
    return runtime


async def _synced(runtime: DeviceRuntime) -> None:
    for folder in runtime.folders.values():
        await folder.sync(everywhere=True)
    assert await runtime.reach(Stage.REPLICATED, SETTLE_S)


def _places(network: LocalNetwork) -> Iterator[tuple[str, bytes]]:
    """Every file of the network's directory, and all memory of its processes."""
    for path in sorted(network.directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield str(path), path.read_bytes()
    for pid in descendants(os.getpid()):
        yield from _memory(pid)


def _memory(pid: int) -> Iterator[tuple[str, bytes]]:
    """Readable memory of a process, mapping by mapping; one that ends meanwhile is no suspect."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ")[:80].decode()
    except OSError:
        return
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            found = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if found is None or line.endswith(("[vvar]", "[vsyscall]")):
                continue
            start, end = (int(part, 16) for part in found.groups())
            try:
                memory.seek(start)
                yield f"memory of {pid} ({command})", memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue


def _hits(network: LocalNetwork, words: Words) -> dict[str, set[str]]:
    hits: dict[str, set[str]] = {}
    for place, data in _places(network):
        for what, word in words.all().items():
            if word in data:
                hits.setdefault(what, set()).add(place)
    return hits


def _in_memory(places: set[str]) -> bool:
    return any(place.startswith("memory") for place in places)


def _seal_nothing(
    era: Era, blob_class: int, payload: bytes, born: int, *, index: int = 0, total: int = 1
) -> bytes:
    """A blob of the right shape whose ciphertext is the payload itself."""
    size = next(bucket for bucket in BLOB_BUCKETS if bucket >= len(payload) + HEADER.size)
    head = HEADER.pack(VERSION, SUITE_CHACHA20_POLY1305, born, os.urandom(32))
    return (head + payload).ljust(size, b"\0")


def test_planted_words_are_nowhere_unless_nothing_is_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        network = LocalNetwork(
            tmp_path / "network",
            clock=SystemClock(),
            entropy=SystemEntropy(),
            regions=("eu",),
            time_scale=10.0,
        )
        async with network:
            words = Words()
            runtime = await _live(network, tmp_path / "sealed", words)
            try:
                assert await asyncio.to_thread(_hits, network, words) == {}
            finally:
                await runtime.close()
                runtime.state.close()
            await _control(network)

    async def _control(network: LocalNetwork) -> None:
        monkeypatch.setattr(slot_module, "seal", _seal_nothing)
        words = Words()
        runtime = await _live(network, tmp_path / "open", words)
        try:
            hits = await asyncio.to_thread(_hits, network, words)
            for again in range(LOOKS_AGAIN):
                if all(map(_in_memory, hits.values())):
                    break
                tree = tmp_path / "open" / words.folder
                (tree / f"{words.file}-{again}").write_bytes(words.content)
                await _synced(runtime)
                for what, places in (await asyncio.to_thread(_hits, network, words)).items():
                    hits.setdefault(what, set()).update(places)
        finally:
            await runtime.close()
            runtime.state.close()
        assert set(hits) == set(words.all()), "a blind search proves nothing"
        for what, places in hits.items():
            assert any("relay" in place or "segments" in place for place in places), what
            assert _in_memory(places), what

    asyncio.run(main())


def test_classes_of_blobs_are_what_the_search_covers() -> None:
    assert {BlobClass.LOG, BlobClass.BULK, BlobClass.CANARY} == set(BlobClass)
