"""seed 004 §2.2, §9.1; DECISIONS D13-D15: every kind of lying server is named, nothing is lost."""

from __future__ import annotations

import json
import subprocess

import pytest

from holdfast.rim.process import holdfast_command
from holdfast.sim.drills.liars import KINDS

pytestmark = pytest.mark.system


def test_each_kind_of_liar_is_named_and_each_control_passes() -> None:
    command = [*holdfast_command("drill", "liars", "--seeds=2", "--seed=7", "--json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    report = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 0, report
    assert report["kinds"] == len(KINDS) >= 10
    assert report["trials"] == 2 * len(KINDS)
    for count in ("undetected", "misnamed", "plaintext", "lost", "silent", "troubles"):
        assert report[count] == 0, report
    assert report["controls_passed"] == report["controls"] == len(KINDS)
    assert report["proofs"] > 0
    assert set(report["names"]) == {kind.name for kind in KINDS}
