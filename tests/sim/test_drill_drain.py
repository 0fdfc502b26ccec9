"""Machines are taken out under clients, and die for good (seed 004 §4.3, §6.2, §6.3)."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = pytest.mark.system


def _drill(*words: str) -> dict[str, Any]:
    command = holdfast_command("drill", *words, "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_session_is_dropped_and_no_machine_goes_too_early() -> None:
    report = _drill("drain", "--clients=3", "--time-scale=40")
    assert report["sessions_dropped"] == report["lost"] == 0
    assert report["sessions_moved"] == report["sessions"] == 6
    assert report["terminated_before_complete"] == 0
    assert report["refused_while_incomplete"] is True
    assert report["control_dropped"] == 3


@pytest.mark.campaign
def test_a_dead_machine_is_replaced_and_a_client_pulls_from_its_successor() -> None:
    report = _drill("heal", "--deaths=2", "--clients=3")
    assert report["lost"] == report["false_spawns"] == 0
    assert 5.0 < report["restored_p50_s"] < 60.0, "never before five minutes of the network's time"
    assert report["push_outage_p99_s"] < 10.0
