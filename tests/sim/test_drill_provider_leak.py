"""A provider's key leaks: seen in a minute, healed, good for nothing else (seed 004 §5.4)."""

from __future__ import annotations

import json
import subprocess

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = pytest.mark.system


def test_what_a_thief_does_is_told_and_healed() -> None:
    command = holdfast_command("drill", "provider-leak", "--time-scale=20", "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["others_touched"] == 0
    assert report["others_asked"] == 2
    assert report["control_touched"] == 1
    assert report["healed"] is True
    assert report["key_in_clear"] == 0 < report["control_in_clear"]
    assert report["leaked_key_made_a_key"] is False
    assert report["bad_key_refused"] is True
    assert report["leaked_key_works_before_rotation"] is True
    assert report["leaked_key_works_after_rotation"] is False
    assert report["healed_after_rotation"] is True
