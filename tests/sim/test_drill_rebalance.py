"""Slots move to empty servers under clients that write (seed 004 §6.2)."""

from __future__ import annotations

import json
import subprocess

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = [pytest.mark.system, pytest.mark.campaign]


def test_the_load_is_evened_under_clients_and_nothing_is_lost() -> None:
    words = ("drill", "rebalance", "--clients=4", "--time-scale=40", "--json")
    done = subprocess.run(
        holdfast_command(*words), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["sessions_dropped"] == report["lost"] == report["let_go_before_filled"] == 0
    assert report["sessions_moved"] > 0
    assert report["imbalance_before"] > 1.3 > 1.1 > report["imbalance_after"]
    assert report["hq_restarts"] == 1
    assert report["control_dropped"] > 0
