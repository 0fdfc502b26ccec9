"""Slowloris, small (seed 004 §11.3)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.main import run

LINE = ("drill", "slowloris", "--hostile=200", "--honest=10", "--seconds=4", "--json")


@pytest.mark.system
def test_honest_clients_are_served(capsys: pytest.CaptureFixture[str]) -> None:
    status = run(LINE)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert found["honest_failures"] == 0
    assert found["hostile_held"] >= 100
    assert found["honest_pushes"] >= 20
    assert found["honest_p99_ms"] > 0
    assert found["control_p99_ms"] > 0
    assert found["control"]
    assert found["control_off_held"] == found["control_hostile"] > 0
    assert found["control_off_ended"] == 0 < found["control_ended"]
    assert {"seed", "commit"} <= set(found)
