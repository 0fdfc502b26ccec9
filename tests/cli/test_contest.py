"""`bench folder`: the judge is strict, and a small contest runs to its end (seed 004 §9)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from holdfast.cli.contest import large
from holdfast.cli.contest.judge import Judge, finish, installed, move_in
from holdfast.errors import OperationFault
from holdfast.limits import MIB
from holdfast.rim.clock import SystemClock
from holdfast.rim.entropy import SeededEntropy

FILES = 40


def make_tree(top: Path) -> Path:
    for number in range(FILES):
        folder = top / f"d{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(os.urandom(number * 97))
    (top / "link").symlink_to("d0")
    return top


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path, Judge]:
    source = make_tree(tmp_path / "source")
    target = tmp_path / "target"
    subprocess.run(["cp", "-a", source, target], check=True)
    return source, target, Judge(source, tmp_path, SystemClock())


def test_the_judge_accepts_a_copy(trees: tuple[Path, Path, Judge]) -> None:
    _, target, judge = trees
    assert judge.tree.files == FILES
    assert asyncio.run(judge.equal(target))
    assert asyncio.run(judge.arrival(target)) >= 0


def test_the_judge_sees_one_wrong_byte(trees: tuple[Path, Path, Judge]) -> None:
    _, target, judge = trees
    victim = target / "d1" / "f5"
    victim.write_bytes(bytes(len(victim.read_bytes())))
    assert not asyncio.run(judge.equal(target))


def test_the_judge_does_not_follow_links(trees: tuple[Path, Path, Judge]) -> None:
    _, target, judge = trees
    (target / "link").unlink()
    (target / "link").symlink_to("d1")
    assert not asyncio.run(judge.equal(target))


def test_a_contender_that_died_ends_the_wait(trees: tuple[Path, Path, Judge]) -> None:
    _, _, judge = trees

    def check() -> None:
        raise OperationFault("it ended")

    with pytest.raises(OperationFault, match="it ended"):
        asyncio.run(judge.arrival(Path("nowhere"), check))


def test_a_failed_command_shows_what_it_said(tmp_path: Path) -> None:
    words = ("sh", "-c", "echo no room; exit 3")
    with pytest.raises(OperationFault, match="no room"):
        asyncio.run(finish(words, tmp_path / "log", SystemClock()))


def test_a_tree_moves_in_at_once(tmp_path: Path) -> None:
    source = make_tree(tmp_path / "source")
    move_in(source, tmp_path / "there")
    assert not source.exists()
    assert (tmp_path / "there" / "d0" / "f0").exists()


def test_the_large_files_are_noise_and_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "NOISE_BYTES", 16 * MIB)
    monkeypatch.setattr(large, "SPARSE_BYTES", 500 * MIB)
    large.make_large(tmp_path / "large", SeededEntropy(1))
    noise, sparse = tmp_path / "large" / "noise", tmp_path / "large" / "sparse"
    assert noise.stat().st_size == 16 * MIB
    assert len(zlib.compress(noise.read_bytes()[: 8 * MIB], 1)) > 8 * MIB
    assert sparse.stat().st_size == 500 * MIB
    assert 5 * MIB <= sparse.stat().st_blocks * 512 <= 6 * MIB


@pytest.mark.system
def test_a_small_contest(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree")
    command = [sys.executable, "-m", "holdfast", "bench", "folder", f"--tree={tree}"]
    command += [f"--dir={tmp_path}", "--rounds=1", "--time-scale=20", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["files"] == FILES
    assert report["ours_s"] > 0
    assert report["rss_mb"] > 0
    assert 0 < report["small_change_p50_ms"] <= report["small_change_max_ms"]
    assert report["large_s"] is None
    for name, key in (("syncthing", "syncthing_s"), ("restic", "restic_backup_s")):
        if installed(name):
            assert report[key] > 0
        else:
            assert any(text.startswith(name) for text in report["left_out"])
