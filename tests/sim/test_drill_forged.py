"""Forged death reports, few: nobody is replaced but the dead (seed 004 §4.1, §9.1)."""

from __future__ import annotations

import json

import pytest

from holdfast.cli.drills.forged import ForgedReport
from holdfast.cli.main import run


@pytest.mark.system
def test_reports_cost_probes_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    line = "drill forged-reports --reports 2000 --liars 24 --time-scale 20 --json"
    status = run(line.split())
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == 0, found
    assert found["reports"] >= 2_000
    assert (found["spawns"], found["false_red"], found["control_spawns"]) == (0, 0, 1)
    assert found["yellow"] > 0, "the reports were heard"
    assert found["control"]
    assert found["spawns_without_verification"] > 0
    assert {"seed", "commit"} <= set(found)


@pytest.mark.parametrize(
    "wrong", [{"spawns": 1}, {"false_red": 1}, {"control_spawns": 0}, {"control": False}]
)
def test_one_wrong_figure_is_enough(wrong: dict[str, int]) -> None:
    figures = {"control_spawns": 1, "watched_elapsed_s": 500.0, "control": True}
    assert ForgedReport(1.0, 1, 1, **figures).held  # type: ignore[arg-type]
    assert not ForgedReport(1.0, 1, 1, **{**figures, **wrong}).held  # type: ignore[arg-type]
