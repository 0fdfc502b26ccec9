"""The device verbs as people type them: processes of their own, against servers in this one."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.device.world import tree
from tests.fabric.world import locator_of
from tests.relay.harness import Pool, until

from holdfast.rim.clock import SystemClock

pytestmark = pytest.mark.system
SCALE = 10.0


class Hand:
    """One device directory, and verbs run on it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "holdfast",
            *words,
            "--dir",
            str(self.home),
            "--json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str, status: int = 0) -> dict[str, Any]:
        if words[1] not in ("status", "list", "locator", "members"):
            words = (*words, "--time-scale", str(SCALE))
        process = await self.start(*words)
        out, err = await process.communicate()
        assert process.returncode == status, (out, err)
        last: dict[str, Any] = json.loads(out.splitlines()[-1])
        return last


def test_the_whole_way(tmp_path: Path) -> None:
    """init, add, sync, invite, join, watch, kill -9, restore."""

    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(SCALE)) as pool:
            record = await pool.seat()
            locator = tmp_path / "locator"
            locator.write_text(str(locator_of(pool, record)))
            ada, ben, cleo = (Hand(tmp_path / name) for name in ("ada", "ben", "cleo"))
            words = tmp_path / "ada.words"
            made = await ada.run(
                "device", "init", "--locator", str(locator), "--phrase-file", str(words)
            )
            assert made["stored"]
            assert words.stat().st_mode & 0o777 == 0o600
            assert len(words.read_text().split()) == 24
            assert "words" not in made
            top = tmp_path / "top"
            (top / "sub").mkdir(parents=True)
            (top / "sub" / "file").write_text("content")
            await ada.run("folder", "add", str(top), "--name", "notes")
            report = await ada.run("folder", "sync")
            assert report["ok"]
            (figure,) = report["folders"]
            assert (figure["files"], figure["queued"], figure["unwitnessed"]) == (1, 0, True)
            invite = (await ada.run("folder", "invite", "notes"))["invite"]
            made = await ben.run("device", "init", "--locator", str(locator), "--name", "ben")
            assert len(made["words"].split()) == 24
            watcher = await ada.start("folder", "sync", "--watch", "--time-scale", str(SCALE))
            await ben.run("folder", "join", invite, str(tmp_path / "ben's"))
            assert (await ben.run("folder", "sync"))["ok"]
            assert tree(tmp_path / "ben's") == tree(top)
            (tmp_path / "ben's" / "back").write_text("from ben")
            assert (await ben.run("folder", "sync"))["ok"]
            await until(lambda: (top / "back").exists())
            members = await ben.run("group", "members", "notes")
            assert "ben" in {member["label"] for member in members["members"]}
            status = await ada.run("device", "status")
            assert status["folders"] == 1
            (figure,) = (await ada.run("folder", "status"))["folders"]
            assert figure["files"] == 2, "status works beside the running watch"
            held = await ada.run("folder", "sync", status=2)
            assert "already runs" in held["message"]
            (top / "last").write_text("written before the kill")
            await until(lambda: _files(tmp_path / "ada") == 3)
            watcher.send_signal(signal.SIGKILL)
            await watcher.wait()
            assert (await ada.run("folder", "sync"))["stored"]
            line = (await ada.run("device", "locator"))["locator"]
            restored = await cleo.run(
                "device",
                "restore",
                "--phrase-file",
                str(words),
                "--locator",
                line,
                "--into",
                str(tmp_path / "restored"),
            )
            assert restored["complete"]
            assert tree(tmp_path / "restored" / "notes") == tree(top)

    asyncio.run(main())


def _files(home: Path) -> int:
    from holdfast.device.view import DeviceView

    view = DeviceView(home)
    try:
        return view.folders()[0].files
    finally:
        view.close()


def test_a_watch_that_is_stopped_says_where_it_stands(tmp_path: Path) -> None:
    async def main() -> None:
        async with Pool(tmp_path / "pool", clock=SystemClock(SCALE)) as pool:
            record = await pool.seat()
            ada = Hand(tmp_path / "ada")
            await ada.run("device", "init", "--locator", str(locator_of(pool, record)))
            top = tmp_path / "top"
            top.mkdir()
            (top / "file").write_text("content")
            await ada.run("folder", "add", str(top))
            watcher = await ada.start("folder", "sync", "--watch")
            await until(lambda: _files(tmp_path / "ada") == 1)
            watcher.terminate()
            out, err = await watcher.communicate()
            assert watcher.returncode == 0, err
            (figure,) = json.loads(out.splitlines()[-1])["folders"]
            assert (figure["name"], figure["files"]) == ("top", 1)

    asyncio.run(main())


def test_errors_say_the_next_step(tmp_path: Path) -> None:
    async def main() -> None:
        hand = Hand(tmp_path / "nobody")
        for words, status, text in (
            (("folder", "list"), 2, "holdfast device init"),
            (("folder", "sync"), 2, "holdfast device init"),
            (("device", "init", "--locator", "hfloc1qqqqqqqq"), 2, "checksum"),
            (("device", "init", "--locator", str(tmp_path / "nothing")), 2, "no file called"),
        ):
            outcome = await hand.run(*words, status=status)
            assert text in outcome["message"]
        bad = tmp_path / "words"
        bad.write_text("abandon " * 24)
        words = ("device", "init", "--locator", "hfloc1", "--phrase-file", str(bad))
        assert "checksum of the phrase" in (await hand.run(*words, status=2))["message"]

    asyncio.run(main())
