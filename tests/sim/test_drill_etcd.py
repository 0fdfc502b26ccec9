"""`drill etcd` at a small size, and the wire that it cuts (D25, D26; seed 000, seed 004 §5.3)."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.local_files import Choice
from holdfast.errors import UsageError
from holdfast.rim.wires import Wire

KEYS = {
    "kills", "double_actions", "lost_decisions", "failover_p99_s", "members", "headquarters",
    "deaths", "orders", "decisions", "terms", "audit_ok", "healed", "seed",
}  # fmt: skip


@pytest.mark.system
def test_a_leader_killed_and_a_leader_cut_off(tmp_path: Path) -> None:
    """Three members, two headquarters: nothing is done twice and no answer is forgotten."""
    words = ["drill", "etcd", "--kills=2", "--faults=leader-kill,leader-cut"]
    command = [sys.executable, "-m", "holdfast", *words, f"--keep={tmp_path}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert set(report) >= KEYS
    assert report["faults"] == {"leader-kill": 1, "leader-cut": 1}
    assert report["deaths"] == report["orders"] == 2
    assert report["double_actions"] == report["lost_decisions"] == 0
    assert report["terms"] >= 3
    assert report["decisions"] > 0


def test_a_wire_carries_hangs_and_carries_again() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1_000):
            writer.write(piece)
        writer.close()

    async def say(wire: Wire) -> bytes:
        reader, writer = await asyncio.open_connection(*wire.address.split(":"))
        try:
            writer.write(b"x")
            async with asyncio.timeout(0.3):
                return await reader.read(1)
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = Wire(f"127.0.0.1:{port}")
        await wire.start()
        assert await say(wire) == b"x"
        reader, writer = await asyncio.open_connection(*wire.address.split(":"))
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        wire.cut()
        assert await reader.read() == b""  # what was open is dropped ...
        with pytest.raises(TimeoutError):
            await say(wire)  # ... and what is new hangs
        wire.mend()
        assert await say(wire) == b"x"
        writer.close()
        await wire.stop()
        server.close()

    asyncio.run(main())


def test_several_headquarters_need_a_store_they_can_share() -> None:
    Choice(store="etcd", headquarters=2).check()
    for wrong in (Choice(headquarters=2), Choice(store="redis"), Choice(headquarters=0)):
        with pytest.raises(UsageError):
            wrong.check()
