"""The next version goes up and back under clients, and a poison stops at the first server."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from holdfast.rim.process import holdfast_command

pytestmark = pytest.mark.system


def _drill(*words: str) -> dict[str, Any]:
    command = holdfast_command("drill", "upgrade", *words, "--json")
    done = subprocess.run(command, capture_output=True, text=True, timeout=1_500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _judge(report: dict[str, Any], servers: int) -> None:
    assert report["acked_lost"] == report["sessions_failed"] == 0
    assert report["acked"] > 0
    assert report["servers_upgraded"] == report["servers_rolled_back"] == servers
    assert [version.endswith("+next") for version in report["hq_versions"]] == [True, False]
    assert report["poison_contained"] is True
    assert report["control_spread"] == servers - 1


@pytest.mark.campaign
def test_two_servers_go_up_and_back_and_poisoned_settings_stop_at_the_first() -> None:
    report = _drill(
        "--regions=eu", "--servers=2", "--clients=2", "--time-scale=60", "--poisons=settings"
    )
    _judge(report, 2)
    assert "of its requests" in report["poison_reasons"]["settings"]


@pytest.mark.campaign
def test_twelve_servers_in_two_regions_and_three_poisons() -> None:
    report = _drill()
    _judge(report, 12)
    assert report["poison_reached"] == {"settings": 1, "crash": 1, "probes": 1}
