"""`bench dns` in small: every name is right, at ours and at Knot (seed 004 §7.4)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run


def test_every_moved_name_is_answered(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(("bench", "dns", "--names=40", "--json")) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["names"] == 40
    assert (report["wrong"], report["rfc2136_wrong"], report["left_out"]) == (0, 0, "")
    assert report["seconds"] > 0
    assert report["rfc2136_seconds"] > 0
