"""`holdfast tour` as a person runs it, on a folder with everything odd in it (seed 004 §2-§8)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = pytest.mark.system
TOUR_S = 600


def _plant(top: Path) -> int:
    """Empty files, odd names, deep paths, links, modes, one larger file; how many files."""
    (top / "empty" / "deeper").mkdir(parents=True)
    (top / "nothing").write_bytes(b"")
    (top / "large").write_bytes(os.urandom(24 << 20))
    (top / "text").write_text("holdfast\n" * 100_000)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "link").symlink_to("text")
    (top / "dangling").symlink_to("nowhere/at all")
    odd = [
        b"new\nline",
        b"\xff\xfe not text",
        b" space ",
        b"-dash",
        "übergröße".encode(),
        b"x" * 255,
    ]
    for name in odd:
        with open(os.path.join(os.fsencode(top), name), "wb") as file:
            file.write(name)
    for number in range(300):
        path = top / "many" / f"{number % 7}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * (number % 50))
    return 4 + len(odd) + 300


def test_the_promise_holds(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    files = _plant(folder)
    command = holdfast_command(
        "tour", f"--folder={folder}", f"--keep={tmp_path / 'tour'}", "--seed=7", "--json"
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=TOUR_S, check=False)
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, report["verdict"]
    assert report["files"] == files
    assert report["clients"] >= 12
    assert (report["mismatches"], report["acked_lost"]) == (0, 0)
    assert set(report["tiers"]) == {"yellow", "orange", "red", "black"}
    assert (report["redundancy_min"], report["redundancy_after"]) == (2, 3)
    assert report["diversity_debt"] > 0
    assert report["diversity_debt_after"] == 0
    assert report["refilled_without_client"] is True
    assert report["restored_from_refilled_only"] is True
    assert (report["dns_wrong"], report["audit_breaks"]) == (0, 0)
    assert report["seed"] == 7
    assert report["commit"]


def test_a_folder_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    command = holdfast_command("tour", f"--folder={tmp_path / 'no'}", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no folder" in json.loads(done.stdout)["message"]
    assert "Traceback" not in done.stderr
