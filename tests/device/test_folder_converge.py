"""Random trees, random edits, random meetings: everybody ends with the same folder."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.device.folder_world import Device, MemoryPool, exchange, found_group

NAMES = [b"a", b"b", b"c.txt", b"\xff\n"]
CONTENTS = [b"", b"1", b"2" * 5_000, b"3" * 300_000, bytes(range(256)) * 2_500]
DEVICES = "abc"

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(b"/".join)
devices = st.sampled_from(DEVICES)
actions = st.one_of(
    st.tuples(st.just("write"), devices, paths, st.sampled_from(CONTENTS)),
    st.tuples(st.just("write"), devices, paths, st.integers(0, 99).map(b"%d".__mod__)),
    st.tuples(st.just("mkdir"), devices, paths, st.just(b"")),
    st.tuples(st.just("remove"), devices, paths, st.just(b"")),
    st.tuples(st.just("rename"), devices, paths, paths),
    st.tuples(st.just("link"), devices, paths, st.just(b"../c.txt")),
    st.tuples(st.just("chmod"), devices, paths, st.just(b"")),
    st.tuples(st.just("commit"), devices, st.just(b""), st.just(b"")),
    st.tuples(st.just("meet"), devices, devices, st.just(b"")),
    st.tuples(st.just("apply"), devices, st.just(b""), st.just(b"")),
    st.tuples(st.just("restart"), devices, st.just(b""), st.just(b"")),
)


def edit(device: Device, verb: str, name: bytes, argument: bytes) -> None:
    """What a person does; what cannot be done is not done."""
    path = os.fsencode(device.top) + b"/" + name
    with contextlib.suppress(OSError):
        if verb == "write":
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(argument)
        elif verb == "mkdir":
            os.makedirs(path)
        elif verb == "remove":
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
        elif verb == "rename":
            os.rename(path, os.fsencode(device.top) + b"/" + argument)
        elif verb == "link":
            os.symlink(argument, path)
        elif verb == "chmod" and not os.path.islink(path):
            os.chmod(path, os.stat(path).st_mode ^ 0o110)


async def play(base: Path, script: list[tuple[str, str, bytes | str, bytes]]) -> None:
    everybody = {name: Device(base, name) for name in DEVICES}
    found_group(*everybody.values())
    pool = MemoryPool()
    for verb, who, one, other in script:
        device = everybody[who]
        if verb == "commit":
            await device.commit(pool)
        elif verb == "meet":
            assert isinstance(one, str)
            exchange(device, everybody[one])
        elif verb == "apply":
            await device.apply(pool)
        elif verb == "restart":
            device.restart()
        else:
            assert isinstance(one, bytes)
            edit(device, verb, one, other)
    await settle(list(everybody.values()), pool)
    for device in everybody.values():
        device.folder.close()


async def settle(everybody: list[Device], pool: MemoryPool) -> None:
    for _ in range(8):
        before = [len(device.log) for device in everybody]
        for device in everybody:
            await device.commit(pool)
        exchange(*everybody)
        for device in everybody:
            await device.apply(pool)
        if before == [len(device.log) for device in everybody]:
            break
    else:
        raise AssertionError("they never agree")
    first = everybody[0].shown()
    for device in everybody[1:]:
        assert device.shown() == first
    for device in everybody:
        assert device.folder.plan(device.state).is_empty


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(actions, max_size=25))
def test_everybody_ends_with_the_same_folder(
    script: list[tuple[str, str, bytes | str, bytes]],
) -> None:
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        asyncio.run(play(base, script))
    finally:
        shutil.rmtree(base)


meetings = st.lists(
    st.tuples(st.sampled_from(["commit", "apply", "meet"]), devices, devices), max_size=15
)
claims = st.lists(st.tuples(devices, paths), min_size=1, max_size=8, unique=True)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(claims, meetings)
def test_whatever_was_written_at_the_same_time_is_kept(
    written: list[tuple[str, bytes]], script: list[tuple[str, str, str]]
) -> None:
    """Nobody deletes and nobody overwrites what they have seen: every content survives."""
    base = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))

    async def main() -> None:
        everybody = {name: Device(base, name) for name in DEVICES}
        found_group(*everybody.values())
        pool = MemoryPool()
        contents = set()
        for number, (who, name) in enumerate(written):
            edit(everybody[who], "write", name, b"content %d" % number)
        for device in everybody.values():
            contents |= {content for kind, _, content in device.shown().values() if kind == "file"}
        for verb, who, other in script:
            if verb == "commit":
                await everybody[who].commit(pool)
            elif verb == "apply":
                await everybody[who].apply(pool)
            else:
                exchange(everybody[who], everybody[other])
        await settle(list(everybody.values()), pool)
        shown = everybody["a"].shown().values()
        assert contents <= {content for kind, _, content in shown if kind == "file"}
        for device in everybody.values():
            device.folder.close()

    try:
        asyncio.run(main())
    finally:
        shutil.rmtree(base)
