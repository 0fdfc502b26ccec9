"""Somebody brings an entry and a core by two commands each (seed 000, seed 001)."""

from __future__ import annotations

import json
import subprocess

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = pytest.mark.system


def test_two_commands_make_a_node_that_needs_no_headquarters() -> None:
    command = holdfast_command("drill", "onboard", "--time-scale=400", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["commands"] == 2
    assert report["hq_off_failures"] == 0
    assert report["off_s"] >= 3_600
    assert report["requests"] > 10
    assert report["control"] is True
