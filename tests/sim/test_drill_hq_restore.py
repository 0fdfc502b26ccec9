"""`drill hq-restore`, as a newcomer would type it (seed 004 §5.3, §12.2)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.system
def test_a_headquarters_made_anew_out_of_the_pool(tmp_path: Path) -> None:
    words = ["drill", "hq-restore", f"--keep={tmp_path}", "--json"]
    command = [sys.executable, "-m", "holdfast", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["state_equal"]
    assert report["healed_a_dead_node"]
    assert report["rows"] > 50
    assert report["seconds_to_decide"] <= 120
    assert report["term"] > report["term_before"]
