"""`holdfast device recover` when every other device and every relay is gone (issue 5, "Shows")."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.device.test_cli import SCALE, Hand
from tests.device.world import tree
from tests.fabric.world import locator_of
from tests.relay.harness import Pool

from holdfast.rim.clock import SystemClock

pytestmark = pytest.mark.system


def test_everything_comes_back_from_replicas_and_the_layers_are_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(SCALE)) as pool:
            record = await pool.seat()
            locator, words, top = (tmp_path / name for name in ("locator", "words", "top"))
            locator.write_text(str(locator_of(pool, record)))
            options = ("--locator", str(locator), "--phrase-file", str(words))
            ada, again = Hand(tmp_path / "ada"), Hand(tmp_path / "again")
            await ada.run("device", "init", *options)
            top.mkdir()
            for number in range(30):
                (top / f"f{number}").write_bytes(os.urandom(1_000 * number))
            await ada.run("folder", "add", str(top), "--name", "notes")
            for _ in range(10):
                (figure,) = (await ada.run("folder", "sync"))["folders"]
                if not figure["queued"] + figure["stored"]:
                    break
            for name, server in pool.servers.items():
                if name.startswith("relay"):
                    await server.stop()
            report = await again.run("device", "recover", *options, "--into", str(tmp_path / "in"))
            assert report["complete"]
            served = {layer["layer"]: layer for layer in report["layers"]}
            assert list(served) == ["vault", "friends", "relays", "replicas", "cold"]
            assert served["relays"]["blobs"] == 0
            assert served["replicas"]["blobs"] > 3
            assert "stub" in served["cold"]["why"]
            assert tree(tmp_path / "in" / "notes") == tree(top)

    asyncio.run(main())
