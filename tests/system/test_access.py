"""The access layer on real processes: Xray and Envoy, driven by agents (seeds 000 and 001)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

pytestmark = pytest.mark.system


def test_seed1_a_client_with_nothing_but_its_subscription_gets_through() -> None:
    """Client Xray, entry, core: TCP and UDP, every byte compared; a core and an entry killed."""
    assert shutil.which("unshare"), "install util-linux"
    assert shutil.which("ip"), "install iproute2"
    words = ("drill", "access", "--megabytes=20", "--kills=1", "--rotations=0", "--json")
    command = [sys.executable, "-m", "holdfast", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["bytes_equal"]
    assert report["counted_by_server"] == 20 * 1024 * 1024
    assert report["udp_ok"]
    assert report["beside_unread_ok"]
    assert report["failed_after_reconnect"] == 0
    assert report["reconnect_p99_s"] <= 2
